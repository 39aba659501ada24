"""Airbyte's jobs against the runs on a real Prefect server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments.runner import RunnerDeployment

from flows.pipelines.reconcile import reconcile_airbyte, start_missed
from flows.services.airbyte.sync_events import AirbyteSync, idempotency_key
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.server.client import connect
from infrastructure.workspace import ROOT
from tests.support.advertising import ADS, CRM, PROJECT
from tests.support.airbyte.server import AirbyteServer
from tests.support.prefect_api import SetUpTarget

CONNECTIONS = {ADS: ("ads",), CRM: ("crm",)}


class Deployed:
    """A deployment of the flow that syncs start, whose runs nobody executes."""

    def __init__(self) -> None:
        name = uuid4().hex[:8]
        made = RunnerDeployment.from_entrypoint("flows.pipelines.transform.dbt_transformation_flow", name=name)
        self.id = made.apply()
        self.name = f"dbt-transformation-flow/{name}"

    def runs(self) -> list[FlowRun]:
        with get_client(sync_client=True) as client:
            return client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[self.id])))


@pytest.fixture
def deployed(prefect_server: str) -> Iterator[Deployed]:
    deployed = Deployed()
    yield deployed
    with get_client(sync_client=True) as client:
        client.delete_deployment(deployed.id)


@pytest.fixture
def known_airbyte(airbyte: AirbyteServer, prefect_server: str) -> Iterator[AirbyteServer]:
    """Register the stand-in as setup does; every test has jobs of its own, as runs are kept for ever."""
    Secret(value=airbyte.api_url).save("airbyte-api-url", overwrite=True)
    # Numbers that no other test has used: a run's tags outlive its test.
    airbyte.add_job(airbyte.add_connection(), ended_at=ago(hours=50))
    airbyte.jobs[int(datetime.now(UTC).timestamp() * 1000)] = airbyte.jobs.pop(41)
    yield airbyte
    Secret.delete("airbyte-api-url")


def ago(**span: float) -> datetime:
    return datetime.now(UTC) - timedelta(**span)


def incidents(target: str) -> dict[str, Any]:
    path = Path(os.environ["TRIBUTARY_STATE"]) / "alerts" / f"{target}.json"
    return json.loads(path.read_text())["incidents"] if path.exists() else {}


def test_what_nobody_announced_is_started_once_as_one_run(
    known_airbyte: AirbyteServer, deployed: Deployed, set_up_target: SetUpTarget
) -> None:
    for connection in (ADS, CRM):
        known_airbyte.add_connection(connection)
    announced = AirbyteSync(ADS, known_airbyte.add_job(ADS, ended_at=ago(hours=3)))
    with connect() as server:
        key = idempotency_key([announced], deployed.name)
        server.start_run(deployed.name, {"source": "ads"}, [announced.tag], key)
    known_airbyte.add_job(ADS, "failed", ended_at=ago(hours=2))
    missed = known_airbyte.add_job(ADS, ended_at=ago(hours=1))
    # Airbyte has no webhook for a refresh; and what ended just now is left to the one of the sync.
    refresh = known_airbyte.add_job(CRM, job_type="refresh", ended_at=ago(minutes=30))
    known_airbyte.add_job(CRM, ended_at=ago(minutes=1))
    done = reconcile_airbyte("prod", deployed.name, project_dir=PROJECT)
    assert done.missed == (AirbyteSync(ADS, missed), AirbyteSync(CRM, refresh))
    started = next(run for run in deployed.runs() if str(run.id) == done.flow_run_id)
    assert started.parameters == {"source": ["ads", "crm"], "jobs": {ADS: missed, CRM: refresh}, "target": "prod"}
    assert sorted(started.tags) == [sync.tag for sync in done.missed]
    command = [sys.executable, "-m", "flows", "reconcile", "--target", set_up_target(), "--deployment", deployed.name]
    again = subprocess.run([*command, "--project-dir", PROJECT], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == "Every finished sync has its run."
    assert f"well       {ADS}" in again.stdout
    assert len(deployed.runs()) == 2


def test_a_lost_announcement_of_a_sync_before_one_that_was_built_needs_no_run(
    known_airbyte: AirbyteServer, deployed: Deployed
) -> None:
    for connection in (ADS, CRM):
        known_airbyte.add_connection(connection)
    known_airbyte.add_job(ADS, ended_at=ago(hours=2))
    built = AirbyteSync(ADS, known_airbyte.add_job(ADS, ended_at=ago(hours=1)))
    with connect() as server:
        server.start_run(deployed.name, {"source": "ads"}, [built.tag], idempotency_key([built], deployed.name))
    assert reconcile_airbyte("prod", deployed.name, project_dir=PROJECT).missed == ()


def start_in_the_end(syncs: Sequence[AirbyteSync], deployment: str) -> None:
    """Start what is missed; a server whose database is locked refuses some, and the next look has the rest."""
    for _ in range(20):
        with suppress(UpstreamUnavailable):
            start_missed(syncs, CONNECTIONS, "prod", deployment)
            return
    pytest.fail("the Prefect server starts no run")


def test_two_reconcilers_at_once_start_one_run(known_airbyte: AirbyteServer, deployed: Deployed) -> None:
    """Their sets differ, and so do their idempotency keys: what keeps them apart is the limit and the tags."""
    first, second = (AirbyteSync(ADS, known_airbyte.add_job(ADS)) for _ in range(2))
    with ThreadPoolExecutor(2) as threads:
        # Each with the settings of this test, which name the server.
        started = [
            threads.submit(copy_context().run, start_in_the_end, some, deployed.name)
            for some in ([first, second], [second])
        ]
    for each in started:
        each.result()
    tags = [tag for run in deployed.runs() for tag in run.tags]
    # A run for the later one stands for the earlier, too.
    assert (tags.count(first.tag) <= 1, tags.count(second.tag)) == (True, 1)


def test_connections_that_do_badly_are_told_until_they_do_well_again(
    known_airbyte: AirbyteServer, deployed: Deployed
) -> None:
    target = f"t{uuid4().hex[:8]}"
    known_airbyte.add_connection(ADS, "Ads")
    known_airbyte.add_job(ADS, "failed", ended_at=ago(hours=1), reason="The token has expired.")
    done = reconcile_airbyte(target, deployed.name, project_dir=PROJECT)
    assert {health.connection_id: health.state for health in done.connections} == {ADS: "failed", CRM: "missing"}
    failed = incidents(target)[f"airbyte sync/{ADS}"]["incident"]
    assert (failed["severity"], failed["text"]) == ("error", "The token has expired. It loads source ads.")
    known_airbyte.add_connection(CRM, "CRM")
    known_airbyte.add_job(CRM, "cancelled", ended_at=ago(hours=1))
    known_airbyte.add_job(ADS)
    reconcile_airbyte(target, deployed.name, project_dir=PROJECT)
    left = {key: entry for key, entry in incidents(target).items() if not entry["closed_at"]}
    assert {key: entry["incident"]["severity"] for key, entry in left.items()} == {f"airbyte sync/{CRM}": "warning"}


def test_a_deployment_that_is_not_there_is_named(known_airbyte: AirbyteServer) -> None:
    known_airbyte.add_connection(ADS)
    known_airbyte.add_job(ADS, ended_at=ago(hours=1))
    with pytest.raises(ConfigError, match=r"no deployment dbt-transformation-flow/nowhere"):
        reconcile_airbyte("prod", "dbt-transformation-flow/nowhere", project_dir=PROJECT)
