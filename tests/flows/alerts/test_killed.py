"""Processes that are killed with -9 cannot tell it: the worker does, and where it is dead too, the server does."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment

from infrastructure.blocks.documents import BlockDocument, Reference, change_of
from infrastructure.registration import DeclaredSetup, apply, plan
from infrastructure.server.automations import PREFIX, TOLD_EVENT, Patience, automation_documents
from tests.support.alert_receivers import Receiver, WriteRoutes, headers, receiver
from tests.support.prefect_api import ask, post
from tests.support.processes import wait_until
from tests.support.workers import kill_all, worker_of

pytestmark = pytest.mark.slow

# The server looks at its automations when it has time, which on a busy machine is minutes later.
_SECONDS = 600.0


@pytest.fixture
def ops(prefect_server: str, fresh: str) -> Iterator[Receiver]:
    """Run a receiver that the server's automations call, and be as impatient as Prefect allows: ten seconds."""
    from infrastructure.server.client import connect

    with receiver() as found:
        call = {"url": found.slack_url, "headers": {"Content-Type": "application/json"}}
        impatient = Patience(told=10, late=10, unhealthy=10, silent=10)
        documents = automation_documents(Reference("webhook", fresh), None, impatient)
        with connect() as server:
            server.save_block(change_of(BlockDocument("webhook", fresh, call), None))
            declared = DeclaredSetup((), (), (), (), (), tuple(documents))
            apply(server, plan(server, declared))
        yield found
    for automation in post(prefect_server, "/automations/filter", {}):
        if automation["name"].startswith(PREFIX):
            ask("DELETE", f"{prefect_server}/automations/{automation['id']}")


@pytest.fixture
def worker(prefect_server: str, fresh: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker of a pool of its own that gives a sign of life every second."""
    with worker_of(fresh) as started:
        yield started


@pytest.fixture
def start(worker: subprocess.Popen[bytes], fresh: str, tmp_path: Path) -> Callable[[str], int]:
    """Return a function that has the worker run the sleeper on a target, and returns the id of its process."""
    with get_client(sync_client=True) as client:

        def is_there() -> bool:
            with suppress(Exception):
                return client.read_work_pool(fresh).name == fresh
            return False

        wait_until(is_there, "the worker has made its pool", _SECONDS)
    deployment = RunnerDeployment.from_entrypoint(
        "tests.flows.alerts.sleeper.sleeper", name=fresh, work_pool_name=fresh
    )
    deployment_id = deployment.apply()

    def run(target: str) -> int:
        file = tmp_path / f"{target}.pid"
        with get_client(sync_client=True) as client:
            parameters = {"target": target, "pid_file": str(file)}
            client.create_flow_run_from_deployment(deployment_id, name=target, parameters=parameters)
        wait_until(file.exists, f"the worker runs {target}", _SECONDS)
        return int(file.read_text())

    return run


def events(api: str, name: str) -> list[dict[str, Any]]:
    """Return the events of a name that the server has."""
    only = {"filter": {"event": {"name": [name]}}}
    return post(api, "/events/filter", only)["events"]


def test_a_killed_run_is_told_by_its_worker_and_a_killed_worker_by_the_server(
    prefect_server: str,
    routes: WriteRoutes,
    team: Receiver,
    ops: Receiver,
    worker: subprocess.Popen[bytes],
    start: Callable[[str], int],
    fresh: str,
) -> None:
    os.kill(start(f"{fresh}-alone"), signal.SIGKILL)
    crashed = f"🔴 {fresh}-alone: sleeper crashed"
    wait_until(lambda: crashed in headers(team), "the worker tells that its run was killed", _SECONDS)
    assert "prefect deployment run sleeper/" in str(team.bodies)

    start(f"{fresh}-both")
    heartbeat = "prefect.flow-run.heartbeat"
    wait_until(lambda: f"{fresh}-both" in str(events(prefect_server, heartbeat)), "the run's heartbeat", _SECONDS)
    kill_all(worker.pid)
    no_worker = f"🔴 Work pool {fresh} has no worker"
    both = f"🔴 {fresh}-both (sleeper) crashed"
    wait_until(lambda: {no_worker, both} <= set(headers(ops)), "the server tells that the worker was killed", _SECONDS)
    said = str(ops.bodies)
    assert "It sent no heartbeat" in said
    assert f"uv run prefect worker start --pool {fresh}" in said
    # That the worker has told it keeps the server from telling it as well, as long as it comes in time.
    told = [event["resource"]["prefect.resource.id"] for event in events(prefect_server, TOLD_EVENT)]
    with get_client(sync_client=True) as client:
        (alone,) = [run for run in client.read_flow_runs(limit=200) if run.name == f"{fresh}-alone"]
    assert f"prefect.flow-run.{alone.id}" in told
