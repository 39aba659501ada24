"""What is compared of two tables: rows, columns, sums of exact numbers, and the keys of their rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from flows.runbook.full_refresh.settings import Tolerance

if TYPE_CHECKING:
    from flows.warehouses.tables import Tables

_EXACT = re.compile(r"(?:decimal|numeric|number|bignumeric)(?:\(\s*\d+\s*,\s*(\d+)\s*\))?$", re.IGNORECASE)


@dataclass(frozen=True)
class Measured:
    """A table in figures.

    Attributes:
        columns: type by name.
        sums: of each column of exact numbers with decimals; 0 for one without values.
    """

    rows: int
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    sums: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])


@dataclass(frozen=True)
class Difference:
    """One figure of a table before and after.

    Attributes:
        allowed: in words; empty where nothing but the same is.
    """

    table: str
    what: str
    before: str
    after: str
    allowed: str
    is_within: bool


def measure(tables: Tables, relation: str) -> Measured:
    """Return the figures of a table."""
    columns = tables.columns(relation)
    exact = [name for name, kind in columns.items() if has_decimals(kind)]
    sums = "".join(f", sum({tables.column(name)}) as sum_{place}" for place, name in enumerate(exact))
    (row,) = tables.rows(f"select count(*) as counted{sums} from {relation}")
    found = {name: Decimal(str(row[f"sum_{place}"] or 0)) for place, name in enumerate(exact)}
    return Measured(int(row["counted"]), columns, found)


def has_decimals(kind: str) -> bool:
    """Say whether a type holds exact numbers with decimals, such as money."""
    found = _EXACT.match(kind)
    return found is not None and found[1] != "0"


def missing_keys(tables: Tables, key: Sequence[str], of: str, in_: str) -> int:
    """Return how many keys of one table are not in another of the same warehouse."""
    names = [tables.column(name) for name in key]
    same = " and ".join(f"n.{name} = o.{name}" for name in names)
    (row,) = tables.rows(
        f"select count(*) as counted from {of} as o where not exists (select 1 from {in_} as n where {same})"
    )
    return int(row["counted"])


def compare_refreshed(
    name: str, before: Measured, after: Measured, missing: int | None, tolerance: Tolerance
) -> list[Difference]:
    """Return the figures of a rebuilt table against those before.

    Args:
        missing: keys that are gone; None where nothing names the rows.
    """
    found = [
        Difference(
            name,
            "rows",
            f"{before.rows:,}",
            f"{after.rows:,}",
            f"± {tolerance.rows_percent:g} %",
            # What was empty has no share that it could grow by.
            before.rows == 0 or _is_within(Decimal(before.rows), Decimal(after.rows), tolerance.rows_percent),
        )
    ]
    if missing is not None:
        share = Decimal(missing * 100) / before.rows if before.rows else Decimal(0)
        allowed = Decimal(str(tolerance.missing_keys_percent))
        found.append(
            Difference(
                name,
                "keys that are gone",
                "",
                f"{missing:,}",
                f"up to {tolerance.missing_keys_percent:g} %",
                share <= allowed,
            )
        )
    for column, total in before.sums.items():
        now = after.sums.get(column)
        is_within = now is not None and (before.rows == 0 or _is_within(total, now, tolerance.sums_percent))
        shown = "no such column" if now is None else f"{now:,}"
        found.append(
            Difference(name, f"sum of {column}", f"{total:,}", shown, f"± {tolerance.sums_percent:g} %", is_within)
        )
    gone = [column for column in before.columns if column not in after.columns]
    new = [column for column in after.columns if column not in before.columns]
    if gone or new:
        # A refresh is how new code comes into a table, so other columns are told and allowed.
        found.append(Difference(name, "columns", ", ".join(gone) or "-", ", ".join(new) or "-", "any", True))
    return found


def _is_within(before: Decimal, after: Decimal, percent: float) -> bool:
    return abs(after - before) * 100 <= abs(before) * Decimal(str(percent))
