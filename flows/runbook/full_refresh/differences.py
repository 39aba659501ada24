"""Compare a rebuilt table with the one before, within tolerances: pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from flows.runbook.full_refresh.settings import Tolerance
from flows.warehouses.measures import Measured


@dataclass(frozen=True)
class Difference:
    """One figure of a table before and after.

    Attributes:
        allowed: in words; empty where no difference is allowed.
    """

    table: str
    what: str
    before: str
    after: str
    allowed: str
    is_within: bool


def compare_refreshed(
    name: str, before: Measured, after: Measured, missing: int | None, tolerance: Tolerance
) -> list[Difference]:
    """Return the differences between a rebuilt table and the one before.

    Args:
        missing: keys that are gone; None where the rows have no key.
    """
    found = [
        Difference(
            name,
            "rows",
            f"{before.rows:,}",
            f"{after.rows:,}",
            f"± {tolerance.rows_percent:g} %",
            # An empty table has no percentage of growth.
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
        # A refresh brings new code into a table, so changed columns are shown and allowed.
        found.append(Difference(name, "columns", ", ".join(gone) or "-", ", ".join(new) or "-", "any", True))
    return found


def _is_within(before: Decimal, after: Decimal, percent: float) -> bool:
    return abs(after - before) * 100 <= abs(before) * Decimal(str(percent))
