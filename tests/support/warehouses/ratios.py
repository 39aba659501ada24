"""The project's ratios on a warehouse, against exact arithmetic."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_UP, Decimal, localcontext

from tests.support.warehouses.builds import Warehouse

# The local servers divide as doubles, which hold no more digits than these; the services divide decimals.
_DIGITS = 15


def wrong_ratios(warehouse: Warehouse) -> list[str]:
    """Return the quotients that the project's macro gets wrong there."""
    text = "string" if warehouse.dbt_output()["type"] == "bigquery" else "varchar"
    pairs = " union all ".join(f"select {place} as place, {n} as n, {d} as d" for place, (n, d) in enumerate(RATIOS))
    query = f"select cast({{{{ ratio('n', 'd', 6) }}}} as {text}) as quotient from ({pairs}) as pairs order by place"
    shown = warehouse.dbt("show", "--quiet", "--output=json", "--limit=-1", "--inline", query)
    if "{" not in shown.output:
        return [shown.output[-500:]]
    rows = json.loads(shown.output[shown.output.index("{") :])["show"]
    wrong: list[str] = []
    with localcontext(prec=60):
        for row, (n, d) in zip(rows, RATIOS, strict=True):
            (found,) = row.values()
            exact = None if d == 0 else (Decimal(n) / Decimal(d)).quantize(Decimal("0.000001"), ROUND_HALF_UP)
            if exact is not None and len(exact.as_tuple().digits) > _DIGITS:
                continue
            if (found is None) != (exact is None) or (exact is not None and Decimal(found) != exact):
                wrong.append(f"{n} / {d}: {found}, not {exact}")
    return wrong


# Ties, thirds, money, signs, the empty day, and a commit written in 1970.
RATIOS = [
    (1, 128),
    (1, 2000000),
    (3, 2000000),
    (2, 3),
    (1, 3),
    (Decimal("0.03"), 2),
    (Decimal("12.34"), Decimal("0.07")),
    (-1, 2000000),
    (-2, 3),
    (0, 7),
    (7, 0),
    (Decimal("9999999999.99"), Decimal("0.01")),
    (1772323200000000, 3600000000),
    *((n, 1000 * n + 16) for n in range(1, 60)),
    *((2 * n + 1, 2 * 10**6) for n in range(1, 60)),
]
