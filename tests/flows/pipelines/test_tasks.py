"""dbt's commands as tasks of somebody's own flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from flows.engine.artifacts.results import DbtResult
from flows.pipelines import tasks
from flows.pipelines.full import dbt_full_pipeline
from infrastructure.errors import DbtRunFailed
from tests.support.prefect_api import SetUpTarget
from tests.support.projects import PROJECTS, deliver
from tests.support.recorded import Recorded


@pytest.fixture(scope="module")
def ran(prefect_server: str, set_up_target: SetUpTarget) -> tuple[dict[str, DbtResult], Recorded]:
    """Run every task once, from a flow that is not this project's."""
    target = set_up_target()
    deliver(target, hours_ago=13)
    place: dict[str, Any] = {"target": target, "project_dir": str(PROJECTS / "orchard")}

    @flow
    def my_own() -> dict[str, DbtResult]:
        return {
            "freshness": tasks.source_freshness(**place),
            "seed": tasks.seed(full_refresh=True, **place),
            "snapshot": tasks.snapshot(**place),
            "run": tasks.run(select="kinds", **place),
            "test": tasks.test(exclude="unique_kinds_id", **place),
            "build": tasks.build(select="kinds", vars={"unused": 1}, **place),
            "docs": tasks.docs(**place),
        }

    state = my_own(return_state=True)
    assert state.state_details.flow_run_id
    return state.result(), Recorded(prefect_server, state.state_details.flow_run_id)


def outcomes(result: DbtResult) -> dict[str, str]:
    """Return outcome by name, without the hook that the project runs before each command."""
    return {node.name: node.outcome for node in result.nodes if node.resource_type != "operation"}


def test_each_task_does_its_part_alone(ran: tuple[dict[str, DbtResult], Recorded]) -> None:
    results, _ = ran
    found = {name: outcomes(result) for name, result in results.items()}
    (source,) = found.pop("freshness").items()
    assert source[1] == "warned", "13 hours are more than its warn_after and less than its error_after"
    assert found == {
        "seed": {"trees": "succeeded"},
        "snapshot": {"trees_over_time": "succeeded"},
        "run": {"kinds": "succeeded"},
        "test": {"not_null_kinds_id": "succeeded"},
        "build": {"kinds": "succeeded", "not_null_kinds_id": "succeeded", "unique_kinds_id": "succeeded"},
        "docs": {},
    }
    assert (results["docs"].target_path / "static_index.html").exists()


def test_the_flow_shows_its_tasks_and_their_nodes(ran: tuple[dict[str, DbtResult], Recorded]) -> None:
    results, recorded = ran
    expected = {node.unique_id for result in results.values() for node in result.nodes}
    runs = recorded.node_runs(len(expected))
    assert set(runs) == expected
    assert {run["state_name"] for run in recorded.task_runs()} == {"Completed"}
    assert len(recorded.task_runs()) == 7
    bad = {node.name for result in results.values() for node in result.of("warned")}
    of_all = "a summary each, a table where there are nodes, an overview of the build; one of each node that warns"
    assert len(recorded.artifacts()) == 14 + len(bad), of_all


def test_a_failing_task_can_be_caught_by_the_flow_that_called_it(
    prefect_server: str, set_up_target: SetUpTarget
) -> None:
    target = set_up_target()

    @flow
    def careful() -> tuple[str, ...]:
        try:
            tasks.run(target=target, project_dir=str(PROJECTS / "outcomes"), select="wrong_sql")
        except DbtRunFailed as exc:
            return exc.failed
        return ()

    assert careful() == ("model.outcomes.wrong_sql",)


@pytest.mark.parametrize("task_runs", [None, "failures"], ids=["by default", "failures"])
def test_a_target_with_fewer_task_runs_leaves_out_nothing_that_did_not_end_well(
    prefect_server: str, set_up_target: SetUpTarget, tmp_path: Path, task_runs: str | None
) -> None:
    place = str(tmp_path / "warehouse.duckdb")
    target = set_up_target({"warehouse": "duckdb", "path": place, "schema": "main", "task_runs": task_runs})
    state = dbt_full_pipeline(
        target=target, project_dir=str(PROJECTS / "outcomes"), freshness=False, retries=0, return_state=True
    )
    with pytest.raises(DbtRunFailed) as failed:
        state.result()
    result = failed.value.finished_result
    assert result is not None
    outcomes = {node.outcome for node in result.nodes}
    assert outcomes == {"succeeded", "warned", "failed", "skipped"}, "the project has one of each"
    expected = {
        node.unique_id: node.outcome
        for node in result.nodes
        if node.outcome != "succeeded" or (task_runs is None and node.resource_type not in ("test", "unit_test"))
    }
    left_out = [node for node in result.nodes if node.unique_id not in expected]
    assert left_out
    assert state.state_details.flow_run_id
    recorded = Recorded(prefect_server, state.state_details.flow_run_id)
    runs = recorded.node_runs(len(expected))
    assert set(runs) == set(expected)
    names = {"failed": "Failed", "skipped": "Skipped", "warned": "Warned", "succeeded": "Completed"}
    states = {key: names[outcome] for key, outcome in expected.items()}
    if task_runs is None:
        # They were built, and do not look good.
        states |= {"model.outcomes.good": "Tests warned", "model.outcomes.untested_ids": "Tests failed"}
    assert {key: run["state_name"] for key, run in runs.items()} == states
    lines = recorded.logs()
    assert all(any(node.name in line["message"] for line in lines) for node in left_out), "all are in the log"
    ours = {run["id"] for run in runs.values()} | {run["id"] for run in recorded.task_runs()}
    assert {line["task_run_id"] for line in lines} - {None} <= ours, "no line is of a task run that is not there"
