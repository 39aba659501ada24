"""The ledger where several connections write at once: only one of them pays."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from flows.runbook.payroll.ledger import PAID, Entry, PayrollLedger, Run, now, sibling
from flows.warehouses.door import open_warehouse
from infrastructure.errors import PayrollStopped
from infrastructure.profiles import Profile
from tests.support.payroll_house import graph_in


@pytest.mark.parametrize(
    ("relation", "beside"),
    [
        ('"db"."gold"."fct"', '"db"."gold"."payroll_runs"'),
        ("DB.GOLD.fct", "DB.GOLD.payroll_runs"),
        ("`project`.`gold`.`fct`", "`project`.`gold`.`payroll_runs`"),
    ],
)
def test_the_ledger_stands_beside_the_payments(relation: str, beside: str) -> None:
    assert sibling(relation, "payroll_runs") == beside


def test_of_two_payments_at_once_one_is_refused(postgres_database: dict[str, Any], fresh: str) -> None:
    profile = Profile("pg", "tributary", {"type": "postgres", "schema": fresh, "threads": 1, **postgres_database}, {})
    graph = graph_in(fresh)
    signed = Run(7, "sum", 2, Decimal("9007199254740993.01"), "run", now(), "", "", *(None,) * 5)
    with open_warehouse(profile) as tables:
        tables.make_schema(fresh)
        ledger = PayrollLedger(tables, graph)
        ledger.make()
        ledger.export(signed, Entry(7, "run", "exported"))
        with pytest.raises(PayrollStopped, match="was not exported with the current data"):
            ledger.pay(replace(signed, checksum="other", paid_at=now()), [])
    ready, outcomes = threading.Barrier(2), list[str]()

    def pay(who: str) -> None:
        paid = replace(
            signed,
            paid_at=now(),
            payment_date=date(2026, 3, 5),
            recorded_by=who,
            adjustments=Decimal(0),
            paid_total=signed.net_total,
        )
        with open_warehouse(profile) as tables:
            ready.wait(60)
            try:
                PayrollLedger(tables, graph).pay(paid, [Entry(7, "run", PAID, who=who, amount=signed.net_total)])
                outcomes.append(who)
            except PayrollStopped as exc:
                outcomes.append(str(exc))

    payers = [threading.Thread(target=pay, args=(who,)) for who in ("ada", "bea")]
    for payer in payers:
        payer.start()
    for payer in payers:
        payer.join(120)
    refused = [
        outcome for outcome in outcomes if "Concert 7 has been paid: 9007199254740993.01 on 2026-03-05" in outcome
    ]
    assert len(outcomes) == 2 and len(refused) == 1, outcomes
    with open_warehouse(profile) as tables:
        assert [entry.kind for entry in PayrollLedger(tables, graph).entries(7)].count(PAID) == 1
        tables.execute(f"drop schema {fresh} cascade")
