"""One thing that is wrong, in the form in which every check describes it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, cast, get_args

from flows.engine.artifacts.results import FailingRows

Severity = Literal["critical", "error", "warning", "info"]
# Worst first.
SEVERITIES: tuple[str, ...] = get_args(Severity)

# What differs from run to run in an error that stays the same: numbers, ids, times.
_CHANGES_BY_ITSELF = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\b[0-9a-f]{16,}\b|\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Incident:
    """One thing that is wrong on one target.

    Attributes:
        key: identifies what is wrong, the same in every run and unique on its target: "<check>/<what>", such as
            "dbt build/model.shop.orders" or "airbyte sync/<connection id>".
        title: one line, such as the name of a node.
        text: the error in full; may be long.
        target: the environment; "" for an incident of none.
        owners: names of people or teams, as dbt's meta, groups and exposures spell them.
        link: where to look, such as the flow run in Prefect's UI.
        retry_command: the command to run once the cause is fixed.
        count: rows that a test found. A warning is sent again only when this grows.
        affects: what is downstream of it and read by people, such as dashboards.
        note: why something is missing here, such as rows with personal data.
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
        """Return the check that found it, such as "dbt build"."""
        return self.key.partition("/")[0]

    @property
    def fingerprint(self) -> str:
        """Return a hash of severity and text without numbers; when it changes, the incident is sent again."""
        said = "" if self.severity in ("warning", "info") else _CHANGES_BY_ITSELF.sub("#", " ".join(self.text.split()))
        return hashlib.sha256(f"{self.severity}\n{said}".encode()).hexdigest()[:16]

    def as_document(self) -> dict[str, Any]:
        """Return the incident as JSON types."""
        return asdict(self)


_FIELDS = frozenset(entry.name for entry in fields(Incident))


@dataclass(frozen=True)
class OpenIncident:
    """An incident with its history.

    Attributes:
        opened_at: ISO 8601, UTC.
        closed_at: None while it is open.
        told: by destination, what was last sent there.
        clock_at: since when the escalation clock runs; None where it was not started.
        acknowledged_at, acknowledged_by: when and by whom it was acknowledged, which stops the clock.
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
    """Return the incident of a document that `as_document` made; fields of later versions are ignored."""
    values: dict[str, Any] = {
        name: tuple(cast(list[Any], value)) if isinstance(value, list) else value for name, value in document.items()
    }
    rows = values.get("failing_rows")
    if rows:
        values["failing_rows"] = FailingRows(tuple(rows["columns"]), tuple(tuple(row) for row in rows["rows"]))
    return Incident(**{name: value for name, value in values.items() if name in _FIELDS})
