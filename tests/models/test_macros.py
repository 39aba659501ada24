"""Arithmetic that must come out the same on every warehouse, to the last digit."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_UP, Decimal, localcontext

from tests.models.journey import Journey

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


def test_ratios_are_rounded_half_away_from_zero(journey: Journey) -> None:
    assert journey.full_refresh
    values = ", ".join(f"({place}, {n}, {d})" for place, (n, d) in enumerate(RATIOS))
    shown = journey.warehouse.dbt(
        "show",
        "--quiet",
        "--output=json",
        "--limit=-1",
        "--inline",
        "select place, cast({{ ratio('n', 'd', 6) }} as varchar) as quotient "
        f"from (values {values}) as pairs (place, n, d) order by place",
    )
    rows = json.loads(shown.output[shown.output.index("{") :])["show"]
    with localcontext(prec=60):
        expected = [
            None if d == 0 else str((Decimal(n) / Decimal(d)).quantize(Decimal("0.000001"), ROUND_HALF_UP))
            for n, d in RATIOS
        ]
    assert [row["quotient"] for row in rows] == expected
