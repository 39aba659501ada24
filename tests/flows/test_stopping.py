"""Stop means stop: from the UI, by Ctrl-C, by SIGTERM and by the clock, while a query runs that would take an hour."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

from flows.engine.sinks import recorder
from flows.engine.target import server_lease as lease
from flows.engine.target.file_lock import one_writer
from flows.history.query import ask
from flows.history.store import history_store
from flows.pipelines.full import dbt_full_pipeline
from infrastructure.errors import RunTimedOut, UpstreamUnavailable
from infrastructure.workspace import ROOT
from tests.support.prefect_api import SetUpTarget, look, post
from tests.support.processes import wait_until
from tests.support.recorded import Recorded
from tests.support.road import Road, only_way

PROJECT = str(Path(__file__).parents[1] / "projects" / "asleep")
SERVE = """
import sys
from flows.pipelines.full import dbt_full_pipeline
dbt_full_pipeline.serve(name=sys.argv[1], pause_on_shutdown=False)
"""
# A machine that others use as well needs its time to start five Pythons.
PATIENCE_SECONDS = 240


@dataclass(frozen=True)
class Sleeper:
    """A target on which a run of the project falls asleep."""

    target: str
    schema: str
    database: dict[str, Any]

    def queries(self) -> int:
        """Count the queries of the run that the warehouse works on."""
        import psycopg2

        with closing(psycopg2.connect(**self.database)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "select count(*) from pg_stat_activity where datname = current_database()"
                " and query like %s and pid <> pg_backend_pid() and state = 'active'",
                [f"%{self.schema}%pg_sleep%"],
            )
            (found,) = cursor.fetchone() or (0,)
            return found

    def wait_for_sleep(self) -> None:
        wait_until(self.queries, "the query runs", PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def sleepers(set_up_target: SetUpTarget, postgres_database: dict[str, Any]) -> Callable[[], Sleeper]:
    """Return a function that makes a target in a schema of its own."""

    def new() -> Sleeper:
        schema = f"asleep_{uuid4().hex[:8]}"
        place = {name: postgres_database[name] for name in ("host", "port", "user", "dbname")}
        settings = {
            "warehouse": "postgres",
            "schema": schema,
            "threads": 1,
            **place,
            "password_env": "SLEEPER_PASSWORD",
        }
        return Sleeper(
            set_up_target(settings, {"SLEEPER_PASSWORD": postgres_database["password"] or "none"}),
            schema,
            postgres_database,
        )

    return new


@contextmanager
def running(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, **environ, "PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    # Whoever runs the tests may have them ignore Ctrl-C, as a shell's background does, and a child would do the same.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        signal.signal(signal.SIGINT, before)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def start_deployed(api: str, deployment: str, sleeper: Sleeper) -> Recorded:
    """Start a flow run of a deployment, as the UI does."""
    address = f"{api}/deployments/name/dbt-full-pipeline/{deployment}"
    wait_until(lambda: look(address), "the deployment is there", PATIENCE_SECONDS)
    deployed = look(address)
    parameters = {"target": sleeper.target, "project_dir": PROJECT}
    run = post(api, f"/deployments/{deployed['id']}/create_flow_run", {"parameters": parameters})
    return Recorded(api, UUID(run["id"]))


def cancel(api: str, recorded: Recorded, state: str = "CANCELLING") -> None:
    """Ask for a cancel, as the UI does."""
    post(api, f"/flow_runs/{recorded.flow_run()['id']}/set_state", {"state": {"type": state}})


def of_the_command_line(api: str, sleeper: Sleeper) -> Recorded:
    """Return the flow run that the command line started on a target."""
    name = f"asleep build {sleeper.target}"
    (run,) = post(api, "/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
    return Recorded(api, UUID(run["id"]))


def ended(recorded: Recorded) -> str:
    wait_until(
        lambda: recorded.flow_run()["state_type"] in ("CANCELLED", "CRASHED", "FAILED", "COMPLETED"),
        "the run ends",
        PATIENCE_SECONDS,
    )
    return recorded.flow_run()["state_name"]


def tasks_of(recorded: Recorded) -> dict[str, str]:
    """Return the states of the flow's own tasks by what they are called."""
    return {run["name"].rpartition("-")[0] or run["name"]: run["state_name"] for run in recorded.task_runs()}


def assert_nothing_is_left(sleeper: Sleeper, recorded: Recorded) -> None:
    """The query is gone, the target is free, and the run lists what was done and what was not."""
    wait_until(lambda: not sleeper.queries(), "the query is cancelled")
    with one_writer(sleeper.target, "the test", wait=False):
        pass
    found = recorded.node_runs(5).values()
    nodes = {run["name"]: run["state_name"] for run in found}
    # The hooks of the project are shown, and are none of the nodes that are counted.
    hooks = {f"asleep-on-run-start-{number}": "Completed" for number in range(2)}
    assert nodes == {"awake": "Completed", "sleeper": "Interrupted", "after": "Skipped", **hooks}
    (after,) = [run["state"]["message"] for run in found if run["name"] == "after"]
    assert re.fullmatch("Not run: the run was stopped.*, before its turn came\\.", after)
    left = f"from nodes where target = '{sleeper.target}' and outcome = 'skipped'"
    query = f"select name, status, message {left} order by name"
    assert ask(history_store(os.environ), query).rows == (
        ("after", "not run", after),
        (
            "sleeper",
            "cut off",
            after.replace(", before its turn came", "").replace("Not run", "Cut off in its work"),
        ),
    )
    summary = recorded.artifacts()[f"dbt-build-{sleeper.target}-summary"]["data"]
    assert "### Stopped: 1 of 3 nodes were done, 1 cut off (sleeper), 1 not begun (after)" in summary


def assert_shown_as_cancelled(sleeper: Sleeper, recorded: Recorded) -> None:
    """Flow run, task and history say that it was cancelled, and nothing says that it failed."""
    assert ended(recorded) == "Cancelled"
    wait_until(lambda: tasks_of(recorded)["dbt build"] == "Cancelled", "the task is shown as cancelled")
    query = f"select run_outcome from runs where target = '{sleeper.target}'"
    assert ask(history_store(os.environ), query).rows == (("cancelled",),)


# Two Pythons that begin cold, and dbt below them: 14 s of a processor. The two ways in which such a run is stopped, by
# a signal and by its state on the server, are those of the fast tests below.
@pytest.mark.slow
def test_a_cancel_from_the_ui_ends_a_served_run_and_its_query(
    prefect_server: str, sleepers: Callable[[], Sleeper]
) -> None:
    sleeper, name = sleepers(), f"served-{uuid4().hex[:8]}"
    with running("-c", SERVE, name):
        recorded = start_deployed(prefect_server, name, sleeper)
        sleeper.wait_for_sleep()
        cancel(prefect_server, recorded)
        assert_shown_as_cancelled(sleeper, recorded)
        assert_nothing_is_left(sleeper, recorded)


@pytest.mark.slow
def test_a_cancel_from_the_ui_ends_the_run_of_a_worker_and_its_query(
    prefect_server: str, sleepers: Callable[[], Sleeper]
) -> None:
    sleeper, name = sleepers(), f"worked-{uuid4().hex[:8]}"
    post(prefect_server, "/work_pools/", {"name": name, "type": "process"})
    flow_id = post(prefect_server, "/flows/", {"name": "dbt-full-pipeline"})["id"]
    deployment = {"name": name, "flow_id": flow_id, "work_pool_name": name, "path": str(ROOT)}
    post(prefect_server, "/deployments/", {**deployment, "entrypoint": "flows.pipelines.full.dbt_full_pipeline"})
    with running("-m", "prefect", "worker", "start", "--pool", name, "--type", "process"):
        recorded = start_deployed(prefect_server, name, sleeper)
        sleeper.wait_for_sleep()
        cancel(prefect_server, recorded)
        assert_shown_as_cancelled(sleeper, recorded)
        assert_nothing_is_left(sleeper, recorded)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_of_the_command_line_and_its_query(
    prefect_server: str, sleepers: Callable[[], Sleeper], number: signal.Signals
) -> None:
    sleeper = sleepers()
    with running("-m", "flows", "run", "--target", sleeper.target, "--project-dir", PROJECT) as process:
        sleeper.wait_for_sleep()
        process.send_signal(number)
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "was stopped: 1 of 3 nodes were done, 1 cut off (sleeper), 1 not begun (after)." in said
    assert f"Error: Stopped by {number.name}. Nothing is running any more" in said
    assert "Traceback" not in said
    recorded = of_the_command_line(prefect_server, sleeper)
    assert_shown_as_cancelled(sleeper, recorded)
    assert_nothing_is_left(sleeper, recorded)
    lines = [line["message"] for line in recorded.logs()]
    assert not [line for line in lines if "Traceback" in line or "KeyboardInterrupt" in line]


@pytest.mark.parametrize("state", ["CANCELLING", "CANCELLED"])
def test_a_cancel_on_the_server_reaches_a_run_of_the_command_line_which_can_be_resumed(
    prefect_server: str, sleepers: Callable[[], Sleeper], state: str
) -> None:
    sleeper = sleepers()
    command = ("-m", "flows", "run", "--target", sleeper.target, "--project-dir", PROJECT)
    with running(*command) as process:
        sleeper.wait_for_sleep()
        recorded = of_the_command_line(prefect_server, sleeper)
        cancel(prefect_server, recorded, state)
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, said
    assert "was stopped: 1 of 3 nodes were done, 1 cut off (sleeper), 1 not begun (after)." in said
    assert "Error: Cancelled on the Prefect server. Nothing is running any more" in said
    assert "Traceback" not in said
    assert_shown_as_cancelled(sleeper, recorded)
    assert_nothing_is_left(sleeper, recorded)
    with running(*command, "--resume", ASLEEP_SECONDS="0") as process:
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, said
    assert "1 node is done, 2 are left" in said


def test_a_run_that_takes_longer_than_it_was_given_ends_timed_out_and_so_does_its_query(
    prefect_server: str, sleepers: Callable[[], Sleeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = sleepers()

    @contextmanager
    def when_it_sleeps(deadline: object, act: Callable[[], None]) -> Iterator[None]:
        """Have the hour end when the query runs."""

        def wait() -> None:
            sleeper.wait_for_sleep()
            act()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        yield
        thread.join()

    monkeypatch.setattr("flows.engine.attempts.calling_at", when_it_sleeps)
    state = dbt_full_pipeline(
        target=sleeper.target, project_dir=PROJECT, freshness=False, timeout_seconds=3600, return_state=True
    )
    assert state.state_details.flow_run_id
    recorded = Recorded(prefect_server, state.state_details.flow_run_id)
    assert (state.name, recorded.flow_run()["state_name"]) == ("TimedOut", "TimedOut")
    error = state.result(raise_on_failure=False)
    assert isinstance(error, RunTimedOut)
    assert "was stopped after 60 minutes, the time that the run was given: 1 of 3 nodes were done" in str(error)
    assert "Run it again with --resume to do what is left." in str(error)
    assert_nothing_is_left(sleeper, recorded)


def test_a_run_that_alone_cannot_reach_the_server_stops_its_query_before_another_run_can_begin(
    prefect_server: str, sleepers: Callable[[], Sleeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server gives the target to another machine when the lease is over; two writers double and lose rows."""
    sleeper = sleepers()
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.5)
    monkeypatch.setattr(lease, "PROVEN_SECONDS", 10.0)
    monkeypatch.setattr(recorder, "CLOSE_SECONDS", 1.0)

    def cut(road: Road) -> None:
        sleeper.wait_for_sleep()
        road.close()

    with only_way(Road(prefect_server), {PREFECT_CLIENT_MAX_RETRIES: 1}) as road:
        thread = threading.Thread(target=cut, args=(road,), daemon=True)
        thread.start()
        state = dbt_full_pipeline(target=sleeper.target, project_dir=PROJECT, freshness=False, return_state=True)
        thread.join()
    error = state.result(raise_on_failure=False)
    assert isinstance(error, UpstreamUnavailable)
    assert "was stopped because the Prefect server has not renewed its right to write for 10 s (" in str(error)
    assert "1 of 3 nodes were done, 1 cut off (sleeper), 1 not begun (after). Run it again with --resume" in str(error)
    wait_until(lambda: not sleeper.queries(), "the query is cancelled")
