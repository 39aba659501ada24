"""One thing that is wrong, as everybody who finds such a thing describes it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, cast, get_args

Severity = Literal["critical", "error", "warning", "info"]
# Worst first.
SEVERITIES: tuple[str, ...] = get_args(Severity)

# What differs from run to run in an error that stays the same: numbers, ids, times.
_CHANGES_BY_ITSELF = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\b[0-9a-f]{16,}\b|\d+", re.IGNORECASE)


@dataclass(frozen=True)
class FailingRows:
    """Some of the rows that a test found, as text; what must not be seen is masked already."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Incident:
    """One thing that is wrong on one target.

    Attributes:
        key: what is wrong, the same from run to run and unique on its target: "<check>/<what>", such as
            "dbt build/model.shop.orders" or "airbyte sync/<connection id>".
        title: one line, such as the name of a node.
        text: the error in full; may be long.
        target: the environment; "" for what is of none.
        owners: names of people or teams, as dbt's meta, groups and exposures spell them.
        link: where to look, such as the flow run in Prefect's UI.
        retry_command: what to type once the cause is mended.
        count: rows that a test found. A warning is told again only when it grows.
        affects: what people read that stands on it, such as dashboards.
        note: why something is missing here, such as rows that are personal data.
    """

    key: str
    severity: Severity
    title: str
    text: str = ""
    target: str = ""
    owners: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    link: str | None = None
    retry_command: str | None = None
    count: int | None = None
    failing_rows: FailingRows | None = None
    affects: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity has to be one of {', '.join(SEVERITIES)}, not {self.severity!r}")

    @property
    def check(self) -> str:
        """Return what noticed it, such as "dbt build"."""
        return self.key.partition("/")[0]

    @property
    def fingerprint(self) -> str:
        """Return what is told again when it changes: how bad it is and what it says, numbers aside."""
        said = "" if self.severity in ("warning", "info") else _CHANGES_BY_ITSELF.sub("#", " ".join(self.text.split()))
        return hashlib.sha256(f"{self.severity}\n{said}".encode()).hexdigest()[:16]

    def as_document(self) -> dict[str, Any]:
        """Return the incident in JSON's own types."""
        return asdict(self)


_FIELDS = frozenset(entry.name for entry in fields(Incident))


@dataclass(frozen=True)
class OpenIncident:
    """An incident with its history.

    Attributes:
        opened_at: ISO 8601, UTC.
        closed_at: None while it is open.
        told: by destination, what its readers were last told.
        clock_at: since when the escalation clock runs; None where nobody started it.
        acknowledged_at, acknowledged_by: since when, and by whom, somebody looks after it; that stops the clock.
    """

    incident: Incident
    opened_at: str
    seen_at: str
    closed_at: str | None = None
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    clock_at: str | None = None
    acknowledged_at: str | None = None
    acknowledged_by: str | None = None


def incident_of(document: Mapping[str, Any]) -> Incident:
    """Return the incident that `as_document` was made of; what a later version may have added is passed over."""
    values: dict[str, Any] = {
        name: tuple(cast(list[Any], value)) if isinstance(value, list) else value for name, value in document.items()
    }
    rows = values.get("failing_rows")
    if rows:
        values["failing_rows"] = FailingRows(tuple(rows["columns"]), tuple(tuple(row) for row in rows["rows"]))
    return Incident(**{name: value for name, value in values.items() if name in _FIELDS})
