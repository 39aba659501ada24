"""Runs of a real project, and the messages that come of them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.alerts.incident_store import store_of
from flows.alerts.routes import ROUTES_VARIABLE
from flows.alerts.runs import report_nodes
from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.project import read_project
from flows.pipelines.full import dbt_full_pipeline
from infrastructure.errors import DbtRunFailed
from tests.support.alert_receivers import Receiver, WriteRoutes, headers
from tests.support.prefect_api import SetUpTarget
from tests.support.projects import profile_in

PROJECT = str(Path(__file__).parents[2] / "projects" / "alarms")


def run(target: str, **vars: int) -> str:
    """Run the pipeline; return the id of its flow run."""
    state = dbt_full_pipeline(target=target, project_dir=PROJECT, vars=vars or None, return_state=True)
    return str(state.state_details.flow_run_id)


def texts(message: dict[str, Any]) -> str:
    return "\n".join(block["text"]["text"] for block in message["blocks"] if "text" in block)


def test_a_run_tells_what_failed_whose_it_is_which_rows_and_what_to_type_and_then_that_it_is_over(
    routes: WriteRoutes, team: Receiver, on_call: Receiver, set_up_target: SetUpTarget
) -> None:
    routes(
        routes=[{"severity": "critical", "to": "on-call", "continue": True}, {"to": "team"}],
        owners={"Finance": "S0123ABCD"},
        failing_rows={"patience_seconds": 300},
    )
    target = set_up_target()
    flow_run_id = run(target, without_amount=7, unknown_currencies=2)

    # One message for a test that failed and one that warns.
    assert headers(team) == [f"🔴 {target}: not_null_payments_amount failed: 7 rows, and 1 more"]
    said = texts(team.bodies[0])
    assert "For <!subteam^S0123ABCD>" in said
    # A critical test stands on it and could not run, so that it is critical itself.
    assert "*not_null_payments_amount failed: 7 rows* · critical · since <!date^" in said
    assert "Read by Revenue board" in said
    assert "/not_null_payments_amount.sql```" in said, "the compiled SQL"
    assert "Rows that it found (5 of 7)\n```id  email  amount  currency\n1   •••    null    ZZZ\n" in said
    assert "example.org" not in said
    assert f"uv run tributary run --target {target} --vars" in said
    assert "--resume```" in said
    assert team.bodies[0]["blocks"][-1]["elements"][0]["url"].endswith(f"/runs/flow-run/{flow_run_id}")
    (page,) = [event for event in on_call.bodies if event["event_action"] == "trigger"]
    assert page["dedup_key"].startswith(f"tributary/{target}/dbt/test.alarms.not_null_payments_amount.")

    before = list(on_call.bodies)
    run(target, without_amount=7, unknown_currencies=2)
    assert (len(team.bodies), on_call.bodies) == (1, before), "nothing has changed"

    run(target)
    assert headers(team)[1:] == [f"🟢 {target}: 2 recovered"]
    resolve = {"routing_key": page["routing_key"], "event_action": "resolve", "dedup_key": page["dedup_key"]}
    after = on_call.bodies[len(before) :]
    assert resolve in after
    assert {event["event_action"] for event in after} == {"resolve"}


def test_an_alert_of_one_project_is_not_over_because_another_of_its_name_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path))
    monkeypatch.setenv(ROUTES_VARIABLE, str(tmp_path / "routes.yml"))
    (tmp_path / "routes.yml").write_text("destinations: {}\nroutes: []\n")
    at = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def report(home: str, status: str) -> list[str]:
        """Report the one node of a project whose state is in a folder of that name; return what is open."""
        node = NodeResult("model.alarms.orders", "orders", "model", "table", status, at, at)
        folder = tmp_path / home / "dev" / "target"
        folder.mkdir(parents=True, exist_ok=True)
        error = DbtRunFailed("it failed") if status == "error" else None
        result = DbtResult("dbt build", "dev", (node,), at, at, folder, folder)
        report_nodes(result, DbtCommand("build"), read_project(Path(PROJECT)), profile_in(tmp_path), error)
        return [key for key, entry in store_of("dev", os.environ).read().incidents.items() if entry.closed_at is None]

    of_one, of_other = "dbt/model.alarms.orders", "dbt of alarms@2/model.alarms.orders"
    assert report("alarms", "error") == [of_one]
    assert report("alarms@2", "success") == [of_one]
    assert report("alarms@2", "error") == [of_one, of_other]
    assert report("alarms", "success") == [of_other]
    assert report("alarms@2", "success") == []
