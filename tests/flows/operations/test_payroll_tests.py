"""Payroll fails closed: whatever is not a test that ran and passed stands against it; pure functions."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flows.engine.graph import graph_of
from flows.engine.results import NodeResult
from flows.operations.payroll_checks import too_old
from flows.operations.payroll_data import (
    Difference,
    Payment,
    Payments,
    checksum_of,
    expected_net,
    faults,
    read_payments,
    sample_of,
    workings,
)
from flows.operations.payroll_tests import confirmed, switched_off_tests
from infrastructure.errors import PayrollStopped
from tests.flows.operations.payroll_house import graph_in

AT = datetime(2026, 3, 1, tzinfo=UTC)
MODEL = "model.orchestra.fct_musician_payment"


def graph(critical: bool, severity: str = "error") -> Any:
    return graph_of(
        {
            "nodes": {
                MODEL: {"name": "fct_musician_payment", "resource_type": "model"},
                "test.orchestra.adds_up": {
                    "name": "adds_up",
                    "resource_type": "test",
                    "depends_on": {"nodes": [MODEL]},
                    "config": {"severity": severity, "meta": {"critical": critical}},
                },
            }
        }
    )


def came(status: str) -> NodeResult:
    return NodeResult("test.orchestra.adds_up", "adds_up", "test", "test", status, AT, AT)


@pytest.mark.parametrize(
    ("status", "critical", "said"),
    [
        ("pass", True, None),
        ("warn", False, None),
        ("warn", True, "critical test adds_up warned"),
        ("fail", False, "test adds_up failed"),
        ("error", True, "critical test adds_up failed"),
        ("skipped", False, "test adds_up was skipped"),
        (None, False, "test adds_up did not run"),
        (None, True, "critical test adds_up did not run"),
    ],
)
def test_only_a_test_that_ran_and_passed_lets_payroll_go_on(
    status: str | None, critical: bool, said: str | None
) -> None:
    (verdict,) = confirmed(graph(critical), [MODEL], [came(status)] if status else [])
    assert (str(verdict) if verdict.stops else None) == said


def test_a_test_that_somebody_switched_off_is_one_that_did_not_run(tmp_path: Path) -> None:
    entry = {"name": "adds_up", "resource_type": "test", "refs": [{"name": "fct_musician_payment"}]}
    other = {"name": "elsewhere", "resource_type": "test", "refs": [{"name": "orders"}]}
    (tmp_path / "manifest.json").write_text(json.dumps({"disabled": {"a": [entry], "b": [other]}}))
    off = switched_off_tests(tmp_path / "manifest.json", ["fct_musician_payment"])
    assert off == ["adds_up"]
    verdicts = confirmed(graph(True), [MODEL], [came("pass")], off)
    assert [str(verdict) for verdict in verdicts if verdict.stops] == ["critical test adds_up is switched off"]


def test_a_source_that_is_old_or_that_nobody_knows_the_age_of_stops_payroll() -> None:
    source = {"name": "pay", "resource_type": "source"}
    nodes = {MODEL: {"name": "fct_musician_payment", "resource_type": "model", "relation_name": "pay"}}
    nodes[MODEL]["depends_on"] = {"nodes": ["source.orchestra.office.pay"]}  # type: ignore[assignment]
    found = graph_of({"nodes": nodes, "sources": {"source.orchestra.office.pay": source}})
    loaded = {"source.orchestra.office.pay": AT}
    assert too_old(found, loaded, 24, AT + timedelta(hours=24)) == ({"office.pay": AT}, [])
    assert too_old(found, loaded, 24, AT + timedelta(hours=24.5))[1] == [
        "source office.pay was loaded 24.5 h ago, and 24 h are allowed"
    ]
    assert too_old(found, {}, 24, AT)[1] == ["source office.pay has no rows, or nobody can tell when they were loaded"]
    assert too_old(graph_of({"nodes": {}}), {}, 24, AT)[1], "no source at all is no good sign"


PAYMENT = Payment(
    "k1", 1, 7, 1, "Ann", "Bell", "Ann Bell", None, "Spring", date(2026, 3, 1), "flat_fee", 1, 3, 2, 3,
    Decimal("300.00"), Decimal("100.50"), Decimal("199.50"), True, datetime(2026, 3, 2), None, Decimal("300.00"),
    Decimal("50.25"),
)  # fmt: skip


def payments(*rows: Payment) -> Payments:
    return Payments(7, rows, checksum_of(rows))


def test_rows_that_must_not_be_paid_are_named() -> None:
    assert faults(payments(), []) == ["concert 7 has no payments"]
    wrong = replace(PAYMENT, net_amount=Decimal("199.51"), is_final=False, full_name=None)
    assert faults(payments(wrong, PAYMENT), [Difference(1, "different", Decimal("0.30"), Decimal("0.28"))]) == [
        "not final, as services are still to be held: musicians 1",
        "without a name or a concert: musicians 1",
        "more than once: musicians 1",
        "amounts that are missing, negative or don't add up: musicians 1",
        "differs from the source: musician 1: calculated 0.30, recorded 0.28, off by 0.02",
    ]
    assert faults(payments(PAYMENT), [Difference(1, "not_recorded", Decimal("199.50"), None)]) == []
    assert faults(payments(PAYMENT), [Difference(2, "not_calculated", None, Decimal("5.00"))])


def test_the_checksum_is_of_all_that_is_signed_and_of_nothing_else() -> None:
    other = replace(PAYMENT, payment_key="k2", musician_id=2)
    same = checksum_of([other, replace(PAYMENT, calculated_at=datetime(2027, 1, 1))])
    assert checksum_of([PAYMENT, other]) == same
    for name, value in {"net_amount": Decimal("199.51"), "email": "a@example.org", "missed_services": 1}.items():
        assert checksum_of([replace(PAYMENT, **{name: value}), other]) != same  # type: ignore[arg-type]


def test_the_sample_is_the_same_for_the_same_seed_and_shows_its_workings() -> None:
    rows = payments(*(replace(PAYMENT, payment_key=f"k{n}", musician_id=n) for n in range(100)))
    seed, sample = sample_of(rows, 10, None)
    assert sample == sample_of(payments(*reversed(rows.rows)), 10, None)[1] == sample_of(rows, 10, seed)[1]
    assert sample != sample_of(rows, 10, seed + 1)[1]
    assert workings(PAYMENT) == "300.00 − 2 missed × 50.25, at most the fee = 199.50"
    assert expected_net(PAYMENT) == PAYMENT.net_amount
    assert expected_net(replace(PAYMENT, missed_services=9)) == Decimal("0.00")


class Inexact:
    """Tables whose amounts are floats."""

    warehouse = "duckdb"

    def rows(self, *_: object) -> list[dict[str, Any]]:
        return [{**vars(PAYMENT), "net_amount": 0.1 + 0.2}]


def test_an_amount_that_is_not_exact_is_refused() -> None:
    with pytest.raises(PayrollStopped, match="net_amount is float in the warehouse, which is not exact"):
        read_payments(Inexact(), graph_in(), 7)  # type: ignore[arg-type]
