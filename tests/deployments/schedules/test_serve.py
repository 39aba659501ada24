"""`python -m flows serve`: runs start without a worker, and stopping it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from infrastructure.workspace import ROOT
from tests.support.processes import wait_until


@pytest.mark.parametrize(
    ("number", "sigint"),
    [
        pytest.param(signal.SIGINT, signal.default_int_handler, id="ctrl-c"),
        # Such as `… serve & kill -TERM $!` in a script: its shell has what it puts in its background ignore SIGINT.
        pytest.param(signal.SIGTERM, signal.SIG_IGN, id="sigterm-in-a-background"),
    ],
)
def test_what_is_served_runs_without_a_worker_until_it_is_stopped(
    prefect_server: str, fresh: str, tmp_path: Path, number: signal.Signals, sigint: Any
) -> None:
    name = f"maintain-history/{fresh}"
    settings = {"flow": "flows.pipelines.history_maintenance.maintain_history", "cron": "0 4 1 1 *", "retries": 1}
    path, log = tmp_path / "schedules.yml", tmp_path / "log"
    path.write_text(yaml.safe_dump({"owner": fresh, "defaults": {"target": "dev"}, "deployments": {name: settings}}))
    with log.open("w") as output:
        served = subprocess.Popen(
            [sys.executable, "-m", "flows", "serve", "--file", str(path), "--poll-seconds", "1"],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(signal.signal, signal.SIGINT, sigint),
        )
    with get_client(sync_client=True) as client:
        try:
            wait_until(lambda: name in log.read_text() and _is_there(client, name), "the deployment is served")
            run = run_deployment(name, timeout=0, as_subflow=False)
            assert isinstance(run, FlowRun)

            def has_ended() -> bool:
                state = client.read_flow_run(run.id).state
                return state is not None and state.is_final()

            wait_until(has_ended, "the run ends")
            assert client.read_flow_run(run.id).state_name == "Completed", log.read_text()
            # What a run logs is sent by a thread of its own, which a fork does not inherit.
            only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
            wait_until(lambda: client.read_logs(only), "the run's log is on the server")
            assert client.read_deployment_by_name(name).paused is False
            process = psutil.Process(served.pid)
            children = process.children(recursive=True)
            served.send_signal(number)
            assert served.wait(120) == 0, log.read_text()
        finally:
            served.kill()
            served.wait()
        said = log.read_text()
        assert f"Serving 1 deployment of {prefect_server}" in said
        assert "01-01 04:00 UTC" in said
        assert "Stopped. Nothing is running any more." in said
        # Python's own tracker of shared resources ends by itself, a moment after its parent.
        wait_until(lambda: not any(child.is_running() for child in children), "nothing is left behind")
        # No run is planned that nobody would pick up.
        assert client.read_deployment_by_name(name).paused is True
        client.delete_deployment(client.read_deployment_by_name(name).id)


def _is_there(client: object, name: str) -> bool:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.exceptions import ObjectNotFound

    assert isinstance(client, SyncPrefectClient)
    try:
        return client.read_deployment_by_name(name).paused is False
    except ObjectNotFound:
        return False
