"""The pipeline on a real Prefect server: what a person sees of a run in the UI."""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from prefect.states import State

from flows.engine.artifacts.manifest_file import load_manifest
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.run_context import FlowRun
from flows.engine.sinks.task_runs import task_run_id
from flows.history.query import ask
from flows.history.store import history_store
from flows.pipelines.full import PipelineResult, dbt_full_pipeline
from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.profiles import load_profile
from tests.support.prefect_api import SetUpTarget
from tests.support.processes import wait_until
from tests.support.projects import PROJECTS, deliver
from tests.support.recorded import Recorded


@dataclass(frozen=True)
class Ran:
    """A flow run that ended, what it returned or raised, and what the server knows of it."""

    state: State[Any]
    value: Any
    recorded: Recorded


def run(api: str, target: str, project: str, **parameters: Any) -> Ran:
    state = dbt_full_pipeline(target=target, project_dir=str(PROJECTS / project), return_state=True, **parameters)
    assert state.state_details.flow_run_id
    return Ran(state, state.result(raise_on_failure=False), Recorded(api, state.state_details.flow_run_id))


@pytest.fixture(scope="module")
def failed(prefect_server: str, set_up_target: SetUpTarget) -> Ran:
    """Run a project whose nodes end in every way."""
    return run(prefect_server, set_up_target(), "outcomes")


@pytest.fixture(scope="module")
def failed_result(failed: Ran) -> DbtResult:
    assert isinstance(failed.value, DbtRunFailed)
    assert isinstance(failed.value.result, DbtResult)
    return failed.value.result


@pytest.fixture(scope="module")
def node_runs(failed: Ran, failed_result: DbtResult) -> dict[str, dict[str, Any]]:
    return failed.recorded.node_runs(len(failed_result.nodes))


def test_a_node_that_fails_fails_the_flow_run_and_says_why(failed: Ran) -> None:
    flow_run = failed.recorded.flow_run()
    assert flow_run["state_type"] == "FAILED"
    assert flow_run["name"].startswith("outcomes build t")
    assert "dbt build failed on target" in flow_run["state"]["message"]
    assert "for 3 of 15 nodes" in flow_run["state"]["message"]


def test_there_is_one_task_run_per_node_with_its_outcome(
    node_runs: dict[str, dict[str, Any]], failed_result: DbtResult
) -> None:
    names = {"succeeded": "Completed", "warned": "Warned", "failed": "Failed", "skipped": "Skipped"}
    assert {key: run["state_name"] for key, run in node_runs.items()} == {
        node.unique_id: names[node.outcome] for node in failed_result.nodes
    }
    assert {run["state_name"]: run["state_type"] for run in node_runs.values()} == {
        "Completed": "COMPLETED",
        "Warned": "COMPLETED",
        "Failed": "FAILED",
        "Skipped": "CANCELLED",
    }
    assert node_runs["model.outcomes.good"]["name"] == "good"
    assert set(node_runs["model.outcomes.good"]["tags"]) == {"dbt", "model"}


def test_task_runs_hang_together_as_the_dag_does(
    node_runs: dict[str, dict[str, Any]], failed: Ran, failed_result: DbtResult
) -> None:
    graph = load_manifest(failed_result.target_path / "manifest.json")
    flow_run_id = failed.state.state_details.flow_run_id
    assert flow_run_id
    unique_ids = {str(task_run_id(FlowRun(flow_run_id, ""), key)): key for key in node_runs}
    assert set(unique_ids) == {run["id"] for run in node_runs.values()}
    for key, recorded in node_runs.items():
        parents = {unique_ids[entry["id"]] for entry in recorded["task_inputs"]["parents"]}
        assert parents == set(graph.parents(key, node_runs)), key
    assert node_runs["model.outcomes.on_inlined"]["task_inputs"]["parents"], "the ephemeral model is looked through"


def test_task_runs_have_the_times_that_dbt_measured(
    node_runs: dict[str, dict[str, Any]], failed_result: DbtResult
) -> None:
    for node in failed_result.nodes:
        recorded = node_runs[node.unique_id]
        assert abs(datetime.fromisoformat(recorded["start_time"]) - node.started_at) < timedelta(milliseconds=1)
        assert abs(datetime.fromisoformat(recorded["end_time"]) - node.finished_at) < timedelta(milliseconds=1)


def test_a_failed_node_says_what_the_warehouse_said(failed: Ran, node_runs: dict[str, dict[str, Any]]) -> None:
    def message(key: str) -> str:
        # A task run can be there for a moment before its state is.
        return (failed.recorded.node_runs(len(node_runs))[key]["state"] or {}).get("message") or ""

    wait_until(lambda: "no_such_column" in message("model.outcomes.wrong_sql"), "the message is recorded")
    wait_until(
        lambda: "Not run: it depends on wrong_sql, which failed." in message("model.outcomes.after_wrong_sql"),
        "what a skipped node waited for is recorded",
        30,
    )
    wait_until(lambda: "Got 1 result" in message("test.outcomes.unique_good_id.c91342c84f"), "so is a test's")


def test_each_relation_is_an_asset_with_what_it_reads_and_how_its_tests_came_out(
    failed: Ran, failed_result: DbtResult
) -> None:
    assets = failed.recorded.assets(6)
    database = next(iter(assets)).partition(".")[0]
    ended = {name.rpartition(".")[2]: event["event"].rpartition(".")[2] for name, event in assets.items()}
    succeeded = dict.fromkeys(("readings", "good", "on_inlined", "doubled", "untested_ids"), "succeeded")
    assert ended == succeeded | {"wrong_sql": "failed"}
    good = assets[f"{database}.main.good"]
    assert good["resource"]["prefect.resource.id"] == f"duckdb://{database}/main/good"
    read = {each["prefect.resource.id"] for each in good["related"] if each["prefect.resource.role"] == "asset"}
    assert read == {f"duckdb://{database}/main/readings"}
    assert good["payload"]["tests"] == {"succeeded": 1, "warned": 1}
    assert assets[f"{database}.main.untested_ids"]["resource"]["tributary.tests"] == "failed"


def test_every_line_of_dbt_is_logged_where_it_belongs(failed: Ran, node_runs: dict[str, dict[str, Any]]) -> None:
    keys = {run["id"]: key for key, run in node_runs.items()}
    lines = [(line["message"], line["level"], keys.get(line["task_run_id"])) for line in failed.recorded.logs()]
    assert [
        line
        for line in lines
        if "ERROR creating sql table model main.wrong_sql" in line[0]
        and line[1] == 40
        and line[2] == "model.outcomes.wrong_sql"
    ]
    assert [line for line in lines if line[0].startswith("Done. PASS=") and line[2] is None]
    assert {line[2] for line in lines} >= set(node_runs) - {"exposure.outcomes.board"}


def test_the_results_are_a_table_and_a_summary_in_the_ui(failed: Ran, failed_result: DbtResult) -> None:
    target = failed_result.target
    artifacts = failed.recorded.artifacts()
    keys = {f"dbt-build-{target}-summary", f"dbt-build-{target}-nodes", f"dbt-overview-{target}"}
    assert keys < set(artifacts)
    rows = json.loads(artifacts[f"dbt-build-{target}-nodes"]["data"])
    assert len(rows) == 15
    assert [row["outcome"] for row in rows[:3]] == ["failed"] * 3
    summary = artifacts[f"dbt-build-{target}-summary"]
    assert summary["type"] == "markdown"
    assert re.match(r"## \w+ failed.*, and 2 more\n", summary["data"]), "the cause, before anything else"
    assert "### Not run (3)" in summary["data"]
    overview = artifacts[f"dbt-overview-{target}"]["data"]
    assert overview.startswith(f"## outcomes on `{target}`: 3 nodes failing, 3 nodes held back")
    assert "newest last: ✗" in overview
    assert re.search(r"\| wrong_sql \| failed \| \w+ \d+, \d\d:\d\d UTC \| 1 \|", overview)


def test_each_node_that_did_not_pass_has_an_artifact_on_its_task_run(failed: Ran, failed_result: DbtResult) -> None:
    found = failed.recorded.artifacts()
    node = next(node for node in failed_result.nodes if node.name == "wrong_sql")
    artifact = found[f"dbt-{failed_result.target}-wrong-sql"]
    flow_run = failed.state.state_details.flow_run_id
    assert flow_run is not None
    assert artifact["task_run_id"] == str(task_run_id(FlowRun(flow_run, ""), node.unique_id))
    assert artifact["data"].startswith("## wrong_sql failed\n\n```text\n")
    assert "### The SQL that dbt ran\n\n```sql\n" in artifact["data"]
    good = {node.name for node in failed_result.of("succeeded")}
    assert not [key for key in found if key.removeprefix(f"dbt-{failed_result.target}-").replace("-", "_") in good]


def test_the_run_is_in_the_history_node_by_node(failed: Ran, failed_result: DbtResult) -> None:
    store = history_store(os.environ)
    where = f"where target = '{failed_result.target}'"
    (run_row,) = ask(store, f"select run_outcome, run_error, nodes, failed, flow_run_id from runs {where}").rows
    assert run_row[0] == "failed"
    assert "dbt build failed on target" in run_row[1]
    assert run_row[2:] == (15, 3, str(failed.state.state_details.flow_run_id))
    nodes = {row["unique_id"]: row for row in ask(store, f"from nodes {where}").documents()}
    assert {key: row["outcome"] for key, row in nodes.items()} == {
        node.unique_id: node.outcome for node in failed_result.nodes
    }
    good = nodes["model.outcomes.good"]
    assert good["thread"]
    assert 0 < good["compile_seconds"] + good["execute_seconds"] <= good["seconds"] + 0.01
    assert nodes["test.outcomes.unique_good_id.c91342c84f"]["failures"] == 1
    assert nodes["test.outcomes.unique_good_id.c91342c84f"]["waited_for"] == "model.outcomes.good"


def test_a_project_of_the_usual_shape_runs_unchanged_and_is_documented(
    prefect_server: str, set_up_target: SetUpTarget
) -> None:
    target = set_up_target()
    ran = run(prefect_server, target, "shop", docs=True)
    assert ran.state.is_completed()
    assert isinstance(ran.value, PipelineResult)
    assert ran.value.freshness is None, "it has no sources"
    assert ran.value.build.counts() == {"succeeded": 14, "warned": 0, "failed": 0, "skipped": 0}
    assert ran.value.docs
    assert b"jaffle_shop" in (ran.value.docs.target_path / "static_index.html").read_bytes()
    with closing(duckdb.connect(load_profile(target).output["path"], read_only=True)) as connection:
        rows = connection.execute("select customer_id, number_of_orders, lifetime_value from customers order by 1")
        assert [(customer, orders, str(value)) for customer, orders, value in rows.fetchall()] == [
            (1, 2, "20.00"),
            (2, 1, "20.99"),
            (3, 1, "0.01"),
            (4, 0, "0.00"),
        ]


def test_a_source_that_is_too_old_stops_the_run_before_anything_is_built(
    prefect_server: str, set_up_target: SetUpTarget
) -> None:
    target = set_up_target()
    path = deliver(target, hours_ago=48)
    ran = run(prefect_server, target, "orchard")
    assert ran.state.is_failed()
    assert isinstance(ran.value, DbtRunFailed)
    said = str(ran.value)
    assert said.startswith("source deliveries.crates is too old: Its newest row is of ")
    assert f"dbt source freshness failed on target {target} for 1 of " in said
    commands = dict(ran.value.explanation.commands)
    assert f"pipeline-failure --target {target}" in commands["Find the loader that stopped"]
    assert f"run --target {target}" in commands["Build all the same"]
    assert "--no-freshness" in commands["Build all the same"]
    assert ran.value.failed == ("source.orchard.deliveries.crates",)
    assert {task["name"].rpartition("-")[0] or task["name"] for task in ran.recorded.task_runs()} == {
        "dbt source freshness"
    }
    with closing(duckdb.connect(str(path), read_only=True)) as connection:
        assert connection.execute("select count(*) from duckdb_tables() where table_name = 'trees'").fetchone() == (0,)


def test_a_target_that_is_not_set_up_is_said_with_the_command_that_does(prefect_server: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dbt_full_pipeline(target="nowhere", project_dir=str(PROJECTS / "shop"))
    assert "nowhere" in str(caught.value)
    assert str(caught.value).endswith("uv run tributary setup --target nowhere")


def test_a_folder_that_is_no_project_is_said_before_anything_is_locked(prefect_server: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a dbt project: it has no dbt_project\.yml"):
        dbt_full_pipeline(target="nowhere", project_dir=str(tmp_path))
