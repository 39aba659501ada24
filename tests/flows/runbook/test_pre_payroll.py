"""pre_payroll and triage on a dbt project: what stops payroll, and what is said of the test that did."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.objects import State

from flows.alerts.incident_store import store_of
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.project import Project, read_project
from flows.engine.context.run_context import RunContext
from flows.engine.run import run_dbt
from flows.runbook.payroll.flow import Planned, pre_payroll
from flows.runbook.payroll.gate import SELECT, against, read_built, read_loaded_at
from flows.runbook.payroll.payments import read_compared, read_payments
from flows.runbook.payroll.signoff_form import sign, waiting
from flows.runbook.triage.flow import triage
from flows.warehouses.door import open_warehouse
from infrastructure.errors import DbtRunFailed, PayrollStopped
from infrastructure.profiles import Profile
from tests.support.prefect_api import SetUpTarget
from tests.support.processes import wait_until
from tests.support.projects import PROJECTS, deliver_payments, load_payments
from tests.support.recorded import Recorded

pytestmark = pytest.mark.slow

PROJECT = str(PROJECTS / "orchestra")


def test_payroll_goes_on_only_with_fresh_data_and_every_test_passed(
    prefect_server: str, set_up_target: SetUpTarget, tmp_path: Path
) -> None:
    target = set_up_target()
    plan = pre_payroll(7, target, PROJECT, dry_run=True)
    assert isinstance(plan, Planned) and "the payments are unknown: nothing has been built yet" in plan.steps

    deliver_payments(target, hours_ago=30)
    # dbt's own promise for this source is 100 hours: payroll's is shorter.
    with pytest.raises(PayrollStopped, match=r"source office.pay was loaded 30.0 h ago, and 24 h are allowed"):
        pre_payroll(7, target, PROJECT, export_to=str(tmp_path))

    deliver_payments(target)
    ended: list[State[Any]] = []

    def run() -> None:
        ended.append(pre_payroll(7, target, PROJECT, export_to=str(tmp_path), poll_seconds=1, return_state=True))

    thread = threading.Thread(target=copy_context().run, args=(run,), daemon=True)
    thread.start()
    wait_until(lambda: ended or waiting(target), "it asks for signatures", 300)
    assert not ended, ended
    asked = waiting(target)[0]
    waits = store_of(target, os.environ).read().incidents["payroll/concert 7 waits"].incident
    assert waits.title == "Payroll of concert 7 waits for signatures: data engineer, finance, manager"
    artifacts = Recorded(prefect_server, asked.flow_run_id).artifacts()
    sample = artifacts[f"payroll-spot-check-{target}-concert-7"]
    assert [(row["workings"], row["worked out again"]) for row in json.loads(sample["data"])] == [
        ("1 attended × 0.30 = 0.30", "agrees"),
        ("1 attended × 100.10 = 100.10", "agrees"),
    ]
    assert sample["description"].startswith("2 of 2 payments, picked with seed ")
    assert artifacts[f"payroll-tests-{target}-concert-7"]["data"].count('"passed"') == 5
    sign(str(asked.flow_run_id), "manager", "Grace Hopper", "reject", "not this week")
    thread.join(120)
    error = ended[0].result(raise_on_failure=False)
    assert isinstance(error, PayrollStopped) and "not this week" in str(error)
    assert "payroll/concert 7 waits" not in store_of(target, os.environ).read().incidents

    deliver_payments(target, amount="null")
    with pytest.raises(PayrollStopped, match=r"critical test net_amount_is_there failed \(1 row\)"):
        pre_payroll(7, target, PROJECT, export_to=str(tmp_path))
    assert not list(tmp_path.iterdir())

    found = triage(target, PROJECT)
    (failing,) = found.failing
    assert (failing.name, failing.is_critical, failing.failures) == ("net_amount_is_there", True, 1)
    assert [row["net_amount"] for row in failing.rows] == [None]
    assert failing.changes.passed_at
    assert any(change.startswith("model fct_musician_payment: built again") for change in failing.changes.nodes)
    key = f"dbt/{failing.unique_id}"
    assert found.clocks == (key,)
    opened = store_of(target, os.environ).read().incidents[key]
    assert opened.clock_at is not None and opened.acknowledged_at is None


Yaml = dict[str, Any]


def _columns(models: Yaml) -> Iterator[Yaml]:
    """Yield what the project says of columns, those of its source included."""
    for each in [*models["sources"][0]["tables"], *models["models"]]:
        yield from each["columns"]


def _has(name: str, **config: object) -> Callable[[Yaml], None]:
    """Return what adds to the configuration of a test."""

    def edit(models: Yaml) -> None:
        tests = [test for column in _columns(models) for test in column["data_tests"] if isinstance(test, dict)]
        (said,) = [about for test in tests for about in test.values() if about["name"] == name]
        said["config"] |= config

    return edit


def _without_tests(models: Yaml) -> None:
    for column in _columns(models):
        del column["data_tests"]


def _whole(models: Yaml) -> None:
    """Leave the project as it is."""


@pytest.mark.parametrize(
    ("edit", "hours_ago", "rows", "said"),
    [
        (_whole, 1, "true", ""),
        (_whole, 1, "p.musician_id < 0", "by no row of fct_payment_reconciliation: musicians 1, 2"),
        (_without_tests, 1, "true", "no critical test of the payments (fct_musician_payment) ran and passed"),
        (_whole, -2, "true", "according to its rows, which is in the future"),
        (
            _has("whose_pay_is_there", severity="warn", warn_if=">= 0"),
            1,
            "true",
            "critical test whose_pay_is_there warned",
        ),
        (_has("both_sides_agree", error_if=">= 0"), 1, "true", "critical test both_sides_agree failed"),
        (_has("net_amount_is_there", enabled=False), 1, "true", "critical test net_amount_is_there is switched off"),
    ],
)
def test_nothing_but_evidence_opens_the_gate(
    tmp_path: Path, edit: Callable[[Yaml], None], hours_ago: int, rows: str, said: str
) -> None:
    """On real dbt: an empty reconciliation, no tests, data of the future, critical tests that did not pass."""
    output = {"type": "duckdb", "path": str(tmp_path / "dev.duckdb"), "schema": "main"}
    profile = Profile("gate", "orchestra", output, {})
    load_payments(tmp_path / "dev.duckdb", hours_ago)
    models = tmp_path / "orchestra" / "models"
    shutil.copytree(PROJECT, models.parent)
    document = yaml.safe_load((models / "models.yml").read_text())
    edit(document)
    (models / "models.yml").write_text(yaml.safe_dump(document))
    with (models / "fct_payment_reconciliation.sql").open("a") as sql:
        sql.write(f"where {rows}\n")
    project = read_project(str(models.parent))
    checked = _done(DbtCommand("source freshness"), project, profile)
    made = _done(DbtCommand("build", SELECT), project, profile)
    built, loaded_at = read_built(made), read_loaded_at(checked)
    with open_warehouse(profile) as tables:
        payments, compared = read_payments(tables, built.manifest, 7), read_compared(tables, built.manifest, 7)
    stops = against(built, loaded_at, datetime.now(UTC), 24, payments, compared)
    assert [line for line in stops if said in line] if said else not stops, stops


def _done(command: DbtCommand, project: Project, profile: Profile) -> DbtResult:
    try:
        return run_dbt(command, RunContext(project, profile))
    except DbtRunFailed as exc:
        return exc.result
