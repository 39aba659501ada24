"""Flows that end in every way, and what they tell of it."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Completed, Crashed

import deployments
import flows
from flows.alerts import Incident, open_incident
from flows.alerts.flow_runs import has_alerts
from flows.alerts.hooks import tell_cancelled, tell_completed, tell_crashed, with_alerts
from flows.alerts.retry_command import of_command, of_deployment, of_pipeline
from flows.engine.context.command import DbtCommand
from flows.pipelines.full import dbt_full_pipeline
from infrastructure.errors import ConfigError, TributaryError, UpstreamUnavailable
from tests.support.alert_receivers import Answer, Receiver, WriteRoutes, headers
from tests.support.prefect_api import post
from tests.support.processes import wait_until
from tests.support.recorded import Recorded


@with_alerts
@flow
def hourly(target: str, problem: str = "") -> None:
    """Fail as it is told."""
    if problem:
        raise UpstreamUnavailable(problem)


@with_alerts
@flow
def mistyped(target: str) -> None:
    """Fail as a command does that was given wrongly."""
    raise ConfigError(f"There is no target {target}.")


def run(target: str, problem: str = "") -> Any:
    return hourly(target, problem, return_state=True)


def test_a_flow_that_fails_tells_it_once_and_tells_when_it_is_well_again(
    routes: WriteRoutes, team: Receiver, fresh: str
) -> None:
    for problem in ("no block x", "no block x", "", ""):
        run(fresh, problem)
    assert headers(team) == [f"🔴 {fresh}: hourly failed", f"🟢 {fresh}: recovered: hourly failed"]
    assert "```no block x```" in str(team.bodies[0])


def test_a_mistake_in_a_command_is_between_it_and_whoever_gave_it(
    routes: WriteRoutes, team: Receiver, fresh: str
) -> None:
    run(fresh, "no answer")
    assert mistyped(fresh, return_state=True).is_failed()
    assert headers(team) == [f"🔴 {fresh}: hourly failed"]


def test_what_could_not_be_sent_is_in_the_runs_report_and_its_state_is_as_it_was(
    routes: WriteRoutes, team: Receiver, fresh: str, prefect_server: str
) -> None:
    team.always = Answer(404, "no_service")
    state = run(fresh, "no block x")
    assert state.is_failed()
    artifacts = Recorded(prefect_server, state.state_details.flow_run_id).artifacts()
    assert "- team: it answered 404: no_service" in artifacts[f"alerts-{fresh}"]["data"]

    # The server is asked to tell it, over its own way.
    def events() -> list[dict[str, Any]]:
        only = {"filter": {"event": {"name": ["tributary.alert.unsent"]}}}
        return post(prefect_server, "/events/filter", only)["events"]

    wait_until(lambda: fresh in str(events()), "the event is on the server")
    assert f"On {fresh}: hourly failed." in str(events())


def test_a_crash_and_a_cancellation_are_told_as_what_they_are(routes: WriteRoutes, team: Receiver, fresh: str) -> None:
    flow_run = FlowRun(id=uuid4(), flow_id=uuid4(), name="x", parameters={"target": fresh}, tags=["nightly"])
    tell_crashed(hourly, flow_run, Crashed(message="Flow run process exited with non-zero status code -9."))
    tell_completed(hourly, flow_run, Completed())
    tell_cancelled(hourly, flow_run, Cancelling())
    assert headers(team) == [
        f"🔴 {fresh}: hourly crashed",
        f"🟢 {fresh}: recovered: hourly crashed",
        f"🟡 {fresh}: hourly was cancelled",
    ]
    assert "status code -9" in str(team.bodies[0])


@with_alerts
@flow
def of_a_project(target: str, project_dir: str | None = None, problem: str = "") -> None:
    """Fail as it is told, for a project."""
    if problem:
        raise UpstreamUnavailable(problem)


def test_a_flow_of_two_projects_on_one_target_is_told_of_each(
    routes: WriteRoutes, team: Receiver, fresh: str, tmp_path: Path
) -> None:
    shop, farm = (tmp_path / name for name in ("shop", "farm"))
    for folder in (shop, farm):
        folder.mkdir()
        (folder / "dbt_project.yml").write_text(f"name: {folder.name}\n")
    gone = str(tmp_path / "gone")
    of_a_project(fresh, str(shop), "no block x", return_state=True)
    of_a_project(fresh, str(farm), return_state=True)
    of_a_project(fresh, return_state=True)
    of_a_project(fresh, gone, "no folder", return_state=True)
    of_a_project(fresh, str(shop), return_state=True)
    assert headers(team) == [
        f"🔴 {fresh}: of-a-project of shop failed",
        f"🔴 {fresh}: of-a-project of {gone} failed",
        f"🟢 {fresh}: recovered: of-a-project of shop failed",
    ]


def test_what_an_earlier_version_told_of_a_project_ends_with_the_run_that_its_command_was_for(
    routes: WriteRoutes, team: Receiver, fresh: str
) -> None:
    def succeeds(project: str) -> None:
        given = {"target": fresh, "project_dir": project}
        tell_completed(dbt_full_pipeline, FlowRun(flow_id=uuid4(), name="x", parameters=given), Completed())

    command = f"uv run tributary run --target {fresh} --project-dir ../farm --resume"
    key = "flow/dbt-full-pipeline"
    open_incident(Incident(key, "error", "dbt-full-pipeline failed", target=fresh, retry_command=command))
    succeeds("../shop")
    assert len(headers(team)) == 1
    succeeds("../farm")
    assert headers(team)[1:] == [f"🟢 {fresh}: recovered: dbt-full-pipeline failed"]


def test_a_flow_inside_a_flow_leaves_it_to_the_outer_one(routes: WriteRoutes, team: Receiver, fresh: str) -> None:
    @with_alerts
    @flow
    def outer(target: str) -> None:
        hourly(target, "no block x")

    outer(fresh, return_state=True)
    assert headers(team) == [f"🔴 {fresh}: outer failed"]


class Unhealthy(TributaryError):
    is_told = True


@with_alerts
@flow
def checks(target: str) -> None:
    for number in range(3):
        open_incident(Incident(f"health/{number}", "error", f"check {number} failed", target=target))
    raise Unhealthy("3 checks failed")


def test_what_a_flow_opens_is_told_in_one_message_at_its_end(routes: WriteRoutes, team: Receiver, fresh: str) -> None:
    checks(fresh, return_state=True)
    assert headers(team) == [f"🔴 {fresh}: check 0 failed, and 2 more"]


def test_every_flow_tells_how_it_ended() -> None:
    found: dict[str, Flow[..., Any]] = {}
    for package in (flows, deployments):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            path = Path(str(getattr(module.module_finder, "path", "")), module.name.rpartition(".")[2] + ".py")
            # Only what defines a flow is imported: some modules need a library that is an extra.
            if path.is_file() and "@flow" in path.read_text(encoding="utf-8"):
                members = vars(importlib.import_module(module.name))
                found |= {f"{module.name}.{name}": f for name, f in members.items() if isinstance(f, Flow)}
    assert "flows.pipelines.full.dbt_full_pipeline" in found
    silent = [name for name, one in found.items() if not has_alerts(one)]
    assert not silent, f"put @with_alerts of flows.alerts.hooks above @flow of {silent}"
    assert {len(hooks) for one in found.values() for hooks in hooks_of(one)} == {1}


def hooks_of(one: Flow[..., Any]) -> list[list[Any]]:
    return [one.on_completion_hooks, one.on_failure_hooks, one.on_crashed_hooks, one.on_cancellation_hooks]


def test_a_flow_that_is_made_to_tell_twice_tells_once() -> None:
    @flow
    def weekly(target: str = "dev") -> None:
        """Do nothing."""

    once = with_alerts(weekly)
    again = with_alerts(once.with_options(retries=1))
    assert [len(hooks) for hooks in hooks_of(again)] == [1, 1, 1, 1]


ACCEPTED = {"target": "dev", "select": None, "vars": None, "freshness": True, "docs": False, "resume": False}


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ({"target": "prod"}, "--target prod --resume"),
        ({"target": "dev", "resume": True}, "--target dev --resume"),
        ({"target": "prod", "select": "tag:a b+", "docs": True}, "--target prod --select 'tag:a b+' --docs --resume"),
        ({"freshness": False, "vars": {"day": 1}}, "--no-freshness --vars '{\"day\": 1}' --resume"),
        ({"target": "prod", "vars": {}}, "--target prod --resume"),
        ({"timeout_seconds": 5400.0}, "--timeout-minutes 90 --resume"),
        ({"target": "prod", "resume": True, "resume_run": "20260131T02"}, "--target prod --resume 20260131T02"),
    ],
)
def test_the_command_line_again_has_what_the_run_was_given(given: dict[str, Any], command: str) -> None:
    assert of_pipeline(ACCEPTED, given) == f"uv run tributary run {command}"


def test_a_deployment_again_has_what_the_run_was_given() -> None:
    given = {"target": "prod", "vars": {"day": 1}, "docs": False}
    assert of_deployment("dbt-full-pipeline", "nightly", ACCEPTED, given) == (
        "uv run prefect deployment run dbt-full-pipeline/nightly --param target=prod "
        "--param 'vars={\"day\": 1}' --param resume=true"
    )


def test_a_dbt_command_of_its_own_has_a_command_line_where_there_is_one() -> None:
    build = DbtCommand("build", select="orders+", full_refresh=True)
    assert of_command(build, "prod", None) == (
        "uv run tributary run --target prod --select orders+ --full-refresh --resume"
    )
    assert of_command(DbtCommand("test"), "prod", None) == "uv run tributary test --target prod --resume"
    assert of_command(DbtCommand("run"), "prod", None) is None
