"""Payroll fails closed: whatever is not a test that ran and passed stands against it; pure functions."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flows.engine.artifacts.manifest_file import manifest_of
from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.runbook.payroll.gate import GatedBuild, read_built, read_loaded_at, too_old, unproven, verdicts
from flows.runbook.payroll.payments import (
    Compared,
    Payment,
    Payments,
    checksum_of,
    expected_net,
    faults,
    read_payments,
    sample_of,
    workings,
)
from infrastructure.errors import ConfigError, PayrollStopped
from tests.support.payroll_house import graph_in

AT = datetime(2026, 3, 1, tzinfo=UTC)
MODEL = "model.orchestra.fct_musician_payment"
MODELS_LEFT = ("dim_musician", "dim_concert", "fct_payment_reconciliation")


def manifest(mark: object = True, severity: str = "error", **more: Any) -> dict[str, Any]:
    return {
        "nodes": {
            MODEL: {"name": "fct_musician_payment", "resource_type": "model"},
            "test.orchestra.adds_up": {
                "name": "adds_up",
                "resource_type": "test",
                "depends_on": {"nodes": [MODEL]},
                "config": {"severity": severity, "meta": {"critical": mark}},
            },
        },
        **more,
    }


def built_of(manifest: dict[str, Any], results: list[NodeResult], since: datetime) -> GatedBuild:
    return GatedBuild(manifest_of(manifest), results, since)


def result(folder: Path, *nodes: NodeResult) -> DbtResult:
    return DbtResult("dbt build", "prod", nodes, AT, AT, folder, folder)


def came(status: str, unique_id: str = "test.orchestra.adds_up", at: datetime = AT) -> NodeResult:
    kind, _, name = unique_id.split(".")
    return NodeResult(unique_id, name, kind, kind, status, at, at)


def stops(built: GatedBuild) -> list[str]:
    return [str(verdict) for verdict in verdicts(built) if verdict.stops]


@pytest.mark.parametrize(
    ("status", "mark", "said"),
    [
        ("pass", True, None),
        ("warn", False, None),
        ("warn", "no", None),
        ("warn", True, "critical test adds_up warned"),
        ("warn", "true", "critical test adds_up warned"),
        ("warn", "Yes", "critical test adds_up warned"),
        ("fail", False, "test adds_up failed"),
        ("error", True, "critical test adds_up failed"),
        ("skipped", False, "test adds_up was skipped"),
        (None, False, "test adds_up did not run"),
        (None, True, "critical test adds_up did not run"),
    ],
)
def test_only_a_test_that_ran_and_passed_lets_payroll_go_on(status: str | None, mark: object, said: str | None) -> None:
    built = built_of(manifest(mark), [came(status)] if status else [], AT)
    assert stops(built) == ([said] if said else [])


def test_what_came_of_a_test_in_an_earlier_build_or_before_its_data_was_built_is_no_evidence() -> None:
    built = built_of(manifest(), [came("pass")], AT + timedelta(seconds=1))
    assert stops(built) == ["critical test adds_up did not run"]
    model = came("success", MODEL, AT + timedelta(seconds=2))
    assert stops(built_of(manifest(), [came("pass"), model], AT)) == [
        "critical test adds_up ran before its data was built"
    ]


def test_a_test_that_somebody_switched_off_is_one_that_did_not_run(tmp_path: Path) -> None:
    entry = {"name": "adds_up", "resource_type": "test", "refs": [{"name": "fct_musician_payment"}]}
    other = {"name": "elsewhere", "resource_type": "test", "refs": [{"name": "orders"}]}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest(disabled={"a": [entry], "b": [other]})))
    assert stops(read_built(result(tmp_path, came("pass")))) == ["critical test adds_up is switched off"]
    path.write_text("[]")
    with pytest.raises(ConfigError, match=r"manifest\.json is not a dbt manifest"):
        read_built(result(tmp_path))


def test_what_no_critical_test_proves_is_named() -> None:
    said = unproven(built_of(manifest(), [came("pass"), came("success", MODEL)], AT))
    assert said[:3] == [f"the project has no model {name}" for name in MODELS_LEFT]
    assert [line.partition(" ran and passed")[0] for line in said[3:]] == [
        "no critical test of what the payments depend on",
        "no critical test of the reconciliation (fct_payment_reconciliation)",
    ]


@pytest.mark.parametrize(
    ("generated", "loaded", "found"),
    [
        ("2026-03-01T00:00:00Z", "2026-02-28T23:00:00+00:00", AT - timedelta(hours=1)),
        ("2026-03-01T00:00:00", "2026-02-28T23:00:00", AT - timedelta(hours=1)),
        ("2026-02-28T00:00:00Z", "2026-02-27T23:00:00+00:00", None),
        ("2026-03-01T00:00:00Z", "0001-01-01T00:00:00+00:00", None),
        ("2026-03-01T00:00:00Z", "yesterday", None),
        ("2026-03-01T00:00:00Z", None, None),
    ],
)
def test_only_what_this_very_check_found_out_says_how_old_a_source_is(
    generated: str, loaded: str | None, found: datetime | None, tmp_path: Path
) -> None:
    entry = {"unique_id": "source.orchestra.office.pay", "max_loaded_at": loaded}
    (tmp_path / "sources.json").write_text(json.dumps({"metadata": {"generated_at": generated}, "results": [entry]}))
    assert read_loaded_at(result(tmp_path)) == ({entry["unique_id"]: found} if found else {})
    assert read_loaded_at(result(tmp_path / "missing")) == {}


def test_a_source_that_is_old_or_that_nobody_knows_the_age_of_stops_payroll() -> None:
    source = {"name": "pay", "resource_type": "source"}
    nodes = {MODEL: {"name": "fct_musician_payment", "resource_type": "model", "relation_name": "pay"}}
    nodes[MODEL]["depends_on"] = {"nodes": ["source.orchestra.office.pay"]}  # type: ignore[assignment]
    found = manifest_of({"nodes": nodes, "sources": {"source.orchestra.office.pay": source}})
    loaded = {"source.orchestra.office.pay": AT}
    assert too_old(found, loaded, 24, AT + timedelta(hours=24)) == ({"office.pay": AT}, [])
    assert too_old(found, loaded, 24, AT + timedelta(hours=24.5))[1] == [
        "source office.pay was loaded 24.5 h ago, and 24 h are allowed"
    ]
    assert too_old(found, loaded, 24, AT - timedelta(minutes=5))[1] == [], "clocks differ a little"
    assert too_old(found, loaded, 24, AT - timedelta(minutes=6))[1] == [
        "source office.pay was loaded at 2026-03-01 00:00 UTC according to its rows, which is in the future"
    ]
    assert too_old(found, loaded, float("nan"), AT)[1]
    assert too_old(found, {}, 24, AT)[1] == ["source office.pay has no rows, or their load time is unknown"]
    assert too_old(manifest_of({"nodes": {}}), {}, 24, AT)[1], "no source at all is no good sign"


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
    assert faults(payments(wrong, PAYMENT), [Compared(1, "different", Decimal("199.51"), Decimal("199.49"))]) == [
        "not final, as there are services left: musicians 1",
        "without a name or a concert: musicians 1",
        "more than once: musicians 1",
        "amounts that are missing, negative or don't add up: musicians 1",
        "another amount in fct_payment_reconciliation than is to be paid: musicians 1",
        "differs from the source: musician 1: calculated 199.51, recorded 199.49, off by 0.02",
    ]


@pytest.mark.parametrize(
    ("outcome", "calculated", "recorded", "said"),
    [
        ("equal", "199.50", "199.50", ""),
        ("equal", "199.50", "199.51", ""),
        ("not_recorded", "199.50", None, ""),
        ("equal", "199.50", "199.52", "differs from the source: musician 1"),
        ("not_recorded", "199.50", "5.00", "differs from the source: musician 1"),
        ("equal", "199.50", None, "differs from the source: musician 1"),
        ("None", "199.50", "199.50", "differs from the source: musician 1"),
        ("equal", "199.49", "199.49", "another amount in fct_payment_reconciliation than is to be paid: musicians 1"),
    ],
)
def test_a_payment_is_held_against_what_the_source_recorded_of_this_very_amount(
    outcome: str, calculated: str, recorded: str | None, said: str
) -> None:
    row = Compared(1, outcome, Decimal(calculated), Decimal(recorded) if recorded else None)
    found = faults(payments(PAYMENT), [row])
    assert [line[: len(said)] for line in found] == ([said] if said else [])


def test_every_payment_has_one_row_of_the_reconciliation_and_the_reconciliation_no_other() -> None:
    row = Compared(1, "equal", Decimal("199.50"), Decimal("199.50"))
    name = "fct_payment_reconciliation"
    assert faults(payments(PAYMENT), []) == [f"compared with the source by no row of {name}: musicians 1"]
    assert faults(payments(PAYMENT), [row, row]) == [f"more than one row of {name}: musicians 1"]
    stranger = Compared(2, "not_calculated", None, Decimal("5.00"))
    assert faults(payments(PAYMENT), [row, stranger]) == [f"differs from the source: {stranger}"]


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
    """Warehouse whose amounts are floats."""

    warehouse = "duckdb"

    def rows(self, *_: object) -> list[dict[str, Any]]:
        return [{**vars(PAYMENT), "net_amount": 0.1 + 0.2}]


def test_an_amount_that_is_not_exact_is_refused() -> None:
    with pytest.raises(PayrollStopped, match="net_amount is float in the warehouse, which is not exact"):
        read_payments(Inexact(), graph_in(), 7)  # type: ignore[arg-type]
