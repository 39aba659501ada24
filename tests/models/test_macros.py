"""Arithmetic that must come out the same on every warehouse, to the last digit."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_UP, Decimal, localcontext

from tests.models.journey import Journey
from tests.support.warehouses.ratios import RATIOS


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
