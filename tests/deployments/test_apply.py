"""Deployments on a real server: planned, made, put right, removed; and people told when a run of one is late."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from click.testing import CliRunner, Result
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleUpdate, DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound

from deployments.apply import example_note, main
from infrastructure.blocks.documents import BlockDocument, change_of
from infrastructure.plan import Change, Plan
from tests.support.alert_receivers import Receiver, receiver
from tests.support.prefect_api import ask, post
from tests.support.processes import wait_until


class Project:
    """A schedules file of a test's own, whose deployments, pool and marker nobody else uses on the server."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.full_name = f"dbt-full-pipeline/{name}"
        self.settings: dict[str, Any] = {
            "owner": name,
            "defaults": {"target": "dev", "work_pool": name},
            "work_pools": {name: {"concurrency": 2}},
            "deployments": {
                self.full_name: {
                    "flow": "flows.pipelines.full.dbt_full_pipeline",
                    "cron": "0 3 * * *",
                    "time_zone": "Europe/Berlin",
                    "parameters": {"select": "tag:marts"},
                    "concurrency": {"limit": 1, "when_busy": "cancel"},
                },
                f"maintain-history/{name}": {"flow": "flows.pipelines.history_maintenance.maintain_history"},
            },
        }

    def run(self, *arguments: str, answer: str | None = None) -> Result:
        self.path.write_text(yaml.safe_dump(self.settings))
        return CliRunner().invoke(main, [arguments[0], "--file", str(self.path), *arguments[1:]], input=answer)

    def actions(self, *arguments: str) -> dict[str, str]:
        result = self.run(*arguments, "--json")
        assert result.exit_code in (0, 3), result.output
        document = json.loads(result.stdout)
        return {it["deployment"]: it["action"] for it in document["deployments"]}


@pytest.fixture
def project(prefect_server: str, fresh: str, tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "schedules.yml", fresh)
    yield made
    assert made.run("destroy", "--yes").exit_code == 0


@pytest.fixture
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found


def test_a_plan_is_shown_applied_once_and_put_right_when_somebody_changes_the_server(
    project: Project, client: SyncPrefectClient
) -> None:
    result = project.run("plan", "--exit-code")
    assert result.exit_code == 3
    for line in (
        f"create     work pool {project.name}",
        f"create     {project.full_name}",
        "+ schedule: 0 3 * * * (Europe/Berlin)",
        "+ parameters.target: dev",
        "+ concurrency: 1 at a time, next is cancelled",
        "next run: ",
    ):
        assert line in result.output
    assert f"To make these changes: uv run tributary deploy apply --file {project.path}" in result.output
    with pytest.raises(ObjectNotFound):
        client.read_deployment_by_name(project.full_name)

    assert project.run("apply").exit_code == 0
    result = project.run("plan", "--exit-code")
    assert result.exit_code == 0
    assert "Nothing to change" in result.output
    assert client.read_work_pool(project.name).concurrency_limit == 2

    deployment = client.read_deployment_by_name(project.full_name)
    assert deployment.entrypoint == "flows.pipelines.full.dbt_full_pipeline"
    client.update_deployment(
        deployment.id,
        DeploymentUpdate(
            paused=True,
            parameters={"target": "prod", "exclude": "x"},
            tags=deployment.tags,
            schedules=[DeploymentScheduleUpdate(schedule=CronSchedule(cron="5 5 * * *", timezone="UTC"), active=True)],
        ),
    )
    result = project.run("plan")
    for line in (
        "~ paused: true → false",
        "~ schedule: 5 5 * * * (UTC) → 0 3 * * * (Europe/Berlin)",
        "~ parameters.target: prod → dev",
        "+ parameters.select: tag:marts",
        "- parameters.exclude: x",
    ):
        assert line in result.output
    assert project.actions("apply")[project.full_name] == "update"
    assert set(project.actions("plan").values()) == {"unchanged"}

    settings = project.settings["deployments"][project.full_name]
    settings["job_variables"] = {"stream_output": "sometimes"}
    result = project.run("apply")
    assert result.exit_code == 2
    assert f"refuses the deployment {project.full_name}" in result.output
    settings.pop("job_variables")

    # What the file no longer says goes: the server keeps what it is not told of.
    settings.pop("cron"), settings.pop("time_zone"), settings.pop("parameters")
    settings["concurrency"] = {"limit": None}
    assert project.actions("apply")[project.full_name] == "update"
    assert set(project.actions("plan").values()) == {"unchanged"}
    deployment = client.read_deployment_by_name(project.full_name)
    assert (deployment.schedules, deployment.global_concurrency_limit) == ([], None)


def test_deployments_of_an_earlier_version_are_shown_and_put_right(project: Project, client: SyncPrefectClient) -> None:
    nightly = f"full-dbt-refresh/{project.name}"
    project.settings["deployments"][nightly] = {"flow": "flows.pipelines.transform.nightly_build"}
    earlier = {
        project.full_name: "flows.pipeline.dbt_full_pipeline",
        nightly: "flows.transform.full_dbt_refresh",
        f"maintain-history/{project.name}": "flows.history.maintenance.maintain_history",
    }
    assert project.run("apply").exit_code == 0
    today = {name: client.read_deployment_by_name(name).entrypoint for name in earlier}
    for name, entrypoint in earlier.items():
        client.update_deployment(client.read_deployment_by_name(name).id, DeploymentUpdate(entrypoint=entrypoint))
    result = project.run("plan", "--exit-code")
    assert result.exit_code == 3
    for name, entrypoint in earlier.items():
        assert f"update     {name}" in result.output
        assert f"~ entrypoint: {entrypoint} → {today[name]}" in result.output
    assert project.actions("apply") == dict.fromkeys(earlier, "update")
    assert {name: client.read_deployment_by_name(name).entrypoint for name in earlier} == today
    assert set(project.actions("plan").values()) == {"unchanged"}


def test_what_left_the_file_is_removed_only_when_asked_and_others_never(
    project: Project, client: SyncPrefectClient
) -> None:
    stranger = RunnerDeployment.from_entrypoint(
        "flows.pipelines.full.dbt_full_pipeline", name=f"{project.name}-stranger"
    )
    stranger_id = stranger.apply()
    made_by_hand = RunnerDeployment.from_entrypoint("flows.pipelines.full.dbt_full_pipeline", name=project.name)
    made_by_hand.apply()
    try:
        # One that bears a name of the file is taken over, and the plan says so.
        assert f'~ tags: [] → ["managed-by:{project.name}", "resume-after-crash:2"]' in project.run("apply").output
        settings = project.settings["deployments"].pop(project.full_name)
        result = project.run("apply")
        assert f"left       {project.full_name}: no longer in the file; --prune removes it" in result.output
        assert "Nothing to change" in result.output
        assert project.actions("apply", "--prune")[project.full_name] == "remove"
        with pytest.raises(ObjectNotFound):
            client.read_deployment_by_name(project.full_name)

        project.settings["deployments"][project.full_name] = settings
        assert project.actions("apply", "--target", "dev") == {project.full_name: "create"}
        assert project.run("plan", "--target", "nowhere").exit_code == 2

        result = project.run("destroy", answer="n\n")
        assert result.exit_code == 130
        assert client.read_deployment_by_name(project.full_name)
        result = project.run("destroy", answer="y\n")
        assert "2 deployments removed." in result.output
        with pytest.raises(ObjectNotFound):
            client.read_deployment_by_name(project.full_name)
        assert client.read_deployment(stranger_id).name == stranger.name
    finally:
        client.delete_deployment(stranger_id)


@contextmanager
def slack(client: SyncPrefectClient) -> Iterator[Receiver]:
    """Have a Slack webhook, in the block that setup makes of one, for the time of the block."""
    from infrastructure.server.client import connect

    with receiver() as found:
        call = {"url": found.slack_url, "headers": {"Content-Type": "application/json"}}
        with connect() as server:
            saved = server.read_block("webhook", "slack-webhook")
            server.save_block(change_of(BlockDocument("webhook", "slack-webhook", call), saved))
        yield found
        if saved is None:
            block = client.read_block_document_by_name("slack-webhook", "webhook", include_secrets=False)
            client.delete_block_document(block.id)


def test_a_run_that_no_worker_picks_up_is_told_of(
    project: Project, client: SyncPrefectClient, prefect_server: str
) -> None:
    settings = project.settings["deployments"][project.full_name]
    # The server looks no more often than this: ten seconds.
    settings["late_after_minutes"] = 10 / 60
    with slack(client) as told:
        result = project.run("apply")
        assert f"create     automation that alerts when {project.full_name} is late" in result.output
        assert project.run("plan", "--exit-code").exit_code == 0

        deployment = client.read_deployment_by_name(project.full_name)
        state = {
            "type": "SCHEDULED",
            "state_details": {"scheduled_time": str(datetime.now(UTC) - timedelta(minutes=5))},
        }
        post(prefect_server, f"/deployments/{deployment.id}/create_flow_run", {"state": state})
        wait_until(told.taken, "the automation tells that the run is late")
        assert f"{project.full_name} should have started" in told.taken()[0]["text"]

        settings.pop("late_after_minutes")
        assert "remove     automation" in project.run("apply").output
        assert project.run("plan", "--exit-code").exit_code == 0


def test_an_event_of_a_finished_sync_starts_the_transformation_once(
    project: Project, client: SyncPrefectClient, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server of one's own, which lacks only the webhook that makes Prefect Cloud's events of deliveries."""
    name, connection = f"dbt-transformation-flow/{project.name}", str(uuid4())
    for module in ("event_automations", "prefect_deployments"):
        monkeypatch.setattr(f"deployments.schedules.{module}.DEPLOYMENT", name)
    for source in ("GOOGLE_ADS", "FACEBOOK_ADS", "SUPABASE"):
        monkeypatch.setenv(f"TRIBUTARY_AIRBYTE_{source}", connection if source == "GOOGLE_ADS" else str(uuid4()))
    project.settings["deployments"] = {name: {"flow": "flows.pipelines.transform.dbt_transformation_flow"}}
    project.settings["airbyte_events"] = True
    result = project.run("apply")
    assert f"create     automation airbyte-syncs-google_ads-{connection}" in result.output
    assert result.output.count("automation airbyte-syncs-") == 3
    assert project.run("plan", "--exit-code").exit_code == 0

    resource = {
        "prefect.resource.id": f"airbyte.connection.{connection}.job.7",
        "airbyte.connection.id": connection,
        "airbyte.job.id": "7",
    }
    event = {"event": "airbyte.sync.succeeded", "resource": resource, "payload": {}}
    deployment = client.read_deployment_by_name(name)
    only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    for _ in range(2):
        document = [{**event, "id": str(uuid4()), "occurred": datetime.now(UTC).isoformat()}]
        ask("POST", f"{prefect_server}/events", json=document)
    wait_until(lambda: client.read_flow_runs(deployment_filter=only), "the automation starts a run")
    (run,) = client.read_flow_runs(deployment_filter=only)
    assert run.parameters["jobs"] == {connection: 7}
    assert (run.parameters["source"], run.parameters["target"]) == (["google_ads"], "dev")

    project.settings["airbyte_events"] = False
    assert project.run("apply").output.count("remove     automation airbyte-syncs-") == 3
    assert project.run("plan", "--exit-code").exit_code == 0


def test_the_examples_deployments_are_called_so_until_the_server_has_them() -> None:
    first = Plan((Change("nightly", "create"), Change("by-hand", "left")))
    (said,) = example_note(first, None)
    assert said.startswith("These are the deployments of the example")
    assert example_note(first, Path("mine.yml")) == []
    assert example_note(Plan((Change("nightly", "unchanged"), Change("by-hand", "create"))), None) == []
