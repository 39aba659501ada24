"""The schedules file: what it becomes, when it runs, and what is said of its mistakes."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner

from deployments.apply import main
from deployments.schedules.declared import DeclaredDeployment, next_runs
from deployments.schedules.needed_services import with_their_services
from deployments.schedules.plan import Saved, fields_of, plan_deployments
from deployments.schedules.schedule_file import load_schedules
from flows.services.airbyte.sync_events import DEPLOYMENT
from infrastructure.errors import ConfigError
from infrastructure.server.client import Server

HEAD = "owner: me\ndefaults: {target: dev, work_pool: mine}\nwork_pools: {mine: {}}\ndeployments:\n"


@pytest.fixture(scope="module")
def shipped() -> dict[str, DeclaredDeployment]:
    return {it.full_name: it for it in load_schedules(environ={})[1]}


def declared(tmp_path: Path, text: str) -> DeclaredDeployment:
    path = tmp_path / "schedules.yml"
    path.write_text(HEAD + text)
    return load_schedules(path, {}, ["dev", "prod"])[1][0]


def mistakes(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        declared(tmp_path, text)
    return str(caught.value)


def test_the_shipped_file_holds_what_the_flows_and_the_webhook_count_on(shipped: dict[str, DeclaredDeployment]) -> None:
    assert DEPLOYMENT in shipped
    nightly = shipped["full-dbt-refresh/nightly"]
    assert (nightly.cron, nightly.time_zone) == ("0 2 * * *", "UTC")
    assert {it.target for it in shipped.values()} == {"prod", "dev", None}
    assert all(it.flow.name == it.flow_name for it in shipped.values())


# As the file of the version before the tree of rooms had them.
EARLIER = {
    "full-dbt-refresh": "flows.transform.full_dbt_refresh",
    "dbt-full-pipeline": "flows.pipeline.dbt_full_pipeline",
    "dbt-transformation-flow": "flows.transform.dbt_transformation_flow",
    "reconcile-airbyte": "flows.reconcile.reconcile_airbyte",
    "transform-new-data": "flows.new_data.transform_new_data",
    "fast-transform": "flows.transform.fast_transform",
    "dashboard-tests": "flows.transform.dashboard_tests",
    "morning-health-check": "flows.operations.health_check.morning_health_check",
    "weekly-full-refresh": "flows.operations.full_refresh.weekly_full_refresh",
    "monthly-audit": "flows.operations.audit.monthly_audit",
    "scd2-repair": "flows.operations.scd2_repair.scd2_repair",
    "pre-payroll": "flows.operations.payroll.pre_payroll",
    "post-payroll": "flows.operations.payroll.post_payroll",
    "triage": "flows.operations.triage.triage",
    "pipeline-failure": "flows.operations.pipeline_failure.pipeline_failure",
    "escalate-alerts": "flows.operations.triage.escalate_alerts",
    "maintain-history": "flows.history.maintenance.maintain_history",
    "resync-cloud-schedules": "deployments.dbt_cloud.resync.resync_cloud_schedules",
}


def test_a_file_of_an_earlier_version_goes_on_and_names_every_flow_where_it_is_today(
    tmp_path: Path, shipped: dict[str, DeclaredDeployment]
) -> None:
    today = {it.flow_name: it.entrypoint for it in shipped.values()}
    assert EARLIER.keys() == today.keys()
    for flow_name, entrypoint in EARLIER.items():
        assert declared(tmp_path, f"  {flow_name}/mine: {{flow: {entrypoint}}}\n").entrypoint == today[flow_name]


@pytest.mark.parametrize(
    ("cron", "zone", "after", "in_utc"),
    [
        # Six in the morning stays six in the morning when clocks go forward, and back.
        ("0 6 * * *", "Europe/Berlin", "2026-03-28T12:00", ["03-29 04:00", "03-30 04:00"]),
        ("0 6 * * *", "Europe/Berlin", "2026-10-24T00:00", ["10-24 04:00", "10-25 05:00", "10-26 05:00"]),
        ("0 6 * * *", "America/New_York", "2026-10-31T00:00", ["10-31 10:00", "11-01 11:00"]),
        ("0 6 * * *", "UTC", "2026-10-24T00:00", ["10-24 06:00", "10-25 06:00", "10-26 06:00"]),
        # The hour that comes twice has one run.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["10-25 00:30", "10-26 01:30"]),
    ],
)
def test_runs_follow_the_local_clock_when_it_changes(cron: str, zone: str, after: str, in_utc: list[str]) -> None:
    found = next_runs(cron, zone, datetime.fromisoformat(after).replace(tzinfo=UTC), len(in_utc))
    assert [f"{at.astimezone(UTC):%m-%d %H:%M}" for at in found] == in_utc


def test_settings_that_are_left_out_come_from_the_defaults(tmp_path: Path) -> None:
    found = declared(
        tmp_path,
        "  dbt-full-pipeline/a:\n    flow: flows.pipelines.full.dbt_full_pipeline\n    cron: 0 4 * * *\n"
        "    parameters: {select: 'tag:marts', retries: 0}\n    concurrency: {limit: 2, when_busy: cancel}\n"
        "    retries: 3\n    job_variables: {env: {A: b}}\n    tags: [x]\n",
    )
    assert found.parameters == {"retries": 0, "select": "tag:marts", "target": "dev"}
    assert (found.work_pool, found.time_zone, found.limit, found.when_busy) == ("mine", "UTC", 2, "CANCEL_NEW")
    assert found.job_variables["env"]["A"] == "b"
    assert found.job_variables["env"]["PREFECT_FLOWS_DEFAULT_RETRIES"] == "3"
    assert found.tags == ("managed-by:me", "resume-after-crash:2", "x")
    assert found.description.startswith("Run a dbt project on a target")


PIPELINE = "  dbt-full-pipeline/a:\n    flow: flows.pipelines.full.dbt_full_pipeline\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PIPELINE + "    corn: 0 4 * * *\n", "line 7, deployments.dbt-full-pipeline/a.corn: no such setting; did you "
         "mean `cron`?"),
        (PIPELINE + "    timezone: UTC\n", "is called `time_zone` here"),
        (PIPELINE + "    cron: 0 25 * * *\n", "line 7, deployments.dbt-full-pipeline/a.cron: '0 25 * * *' is not a"),
        (PIPELINE + "    cron: 0 4 * *\n", "has to be five fields"),
        (PIPELINE + "    cron: 0 4 * * *\n    time_zone: Europe/Berlinn\n", "'Europe/Berlinn' is not a time zone; did "
         "you mean `Europe/Berlin`?"),
        (PIPELINE + "    time_zone: Europe/Berlin\n", "has no effect without `cron`"),
        (PIPELINE + "    target: prd\n", "there is no target 'prd'; did you mean `prod`?"),
        (PIPELINE + "    project: shop\n", "there is no project 'shop'; there is none"),
        (PIPELINE + "    work_pool: min\n", "there is no work pool 'min'; did you mean `mine`?"),
        (PIPELINE + "    parameters: {selct: x}\n", "the flow dbt-full-pipeline takes no such parameter; did you mean "
         "`select`?"),
        (PIPELINE + "    parameters: {retries: often}\n", "does not accept this: 'often'"),
        (PIPELINE + "    parameters: {target: dev}\n", "write `target` beside the parameters"),
        (PIPELINE + "    concurrency: {limit: 0}\n", "concurrency.limit: expected at least 1, found 0"),
        (PIPELINE + "    concurrency: {when_busy: queue}\n", "expected one of `wait`, `cancel`"),
        (PIPELINE + "    parameters: {select: '${NOT_SET}'}\n", "set NOT_SET"),
        ("  dbt-full-pipeline/a: {flow: flows.pipelines.full.dbt_fullpipeline}\n",
         "has no flow 'dbt_fullpipeline'; did you mean `dbt_full_pipeline`?"),
        ("  dbt-full-pipeline/a: {flow: flows.pipelin.dbt_full_pipeline}\n", "there is no flow flows.pipelin"),
        ("  dbt-full-pipeline/a: {flow: 'flows/pipelines/full.py:dbt_full_pipeline'}\n",
         "names a file; name the module"),
        ("  dbt-ful-pipeline/a: {flow: flows.pipelines.full.dbt_full_pipeline}\n", "name it dbt-full-pipeline/a"),
        ("  nightly: {flow: flows.pipelines.full.dbt_full_pipeline}\n", "has to be named <flow>/<name>"),
        ("  maintain-history/a: {flow: flows.pipelines.history_maintenance.maintain_history, target: dev}\n",
         "takes no target"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line_and_what_was_meant(tmp_path: Path, text: str, said: str) -> None:
    assert said in mistakes(tmp_path, text)


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    said = mistakes(tmp_path, PIPELINE + "    target: prd\n    parameters: {selct: x, retries: often}\n")
    assert "has 3 mistakes" in said


def test_the_next_runs_are_shown_on_their_own_clock_and_in_utc(tmp_path: Path) -> None:
    path = tmp_path / "schedules.yml"
    berlin = "    cron: 0 6 * * *\n    time_zone: Europe/Berlin\n"
    by_hand = "  dbt-full-pipeline/b: {flow: flows.pipelines.full.dbt_full_pipeline}\n"
    path.write_text(HEAD + PIPELINE + berlin + by_hand)
    result = CliRunner().invoke(main, ["next", "--file", str(path), "--after", "2026-03-28T12:00", "--count", "2"])
    assert result.output.splitlines() == [
        "dbt-full-pipeline/a  0 6 * * * (Europe/Berlin)",
        "  Sun 2026-03-29 06:00 CEST  =  2026-03-29 04:00 UTC",
        "  Mon 2026-03-30 06:00 CEST  =  2026-03-30 04:00 UTC",
        "Without a schedule: dbt-full-pipeline/b",
    ]


def test_a_plan_shows_no_secret_that_somebody_put_into_the_environment_of_a_run(tmp_path: Path) -> None:
    found = declared(tmp_path, PIPELINE + "    job_variables: {env: {API_TOKEN: hunter2, REGION: eu}}\n")
    (change,) = plan_deployments([found], [], prune=False)
    shown = {it.path: it.new for it in change.fields}
    assert shown["job variables.env.API_TOKEN"] == "(not shown)"
    assert shown["job variables.env.REGION"] == "eu"
    assert "hunter2" not in str(change.fields)
    old = {**fields_of(found), "job variables.env.API_TOKEN": "hunter1"}
    (change,) = plan_deployments([found], [Saved("1", found.full_name, "dev", True, old)], prune=False)
    assert change.action == "update"


@pytest.mark.parametrize(
    ("pool", "place"),
    [
        ("{}", "{here}"),
        ("{type: docker}", "/workspace"),
        ("{workspace: /srv/ours}", "/srv/ours"),
        ("{job_variables: {env: {TRIBUTARY_WORKSPACE: /theirs}}}", "/theirs"),
    ],
)
def test_workers_are_told_where_the_workspace_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: str, place: str
) -> None:
    text = HEAD.replace("mine: {}", f"mine: {pool}") + PIPELINE
    path = tmp_path / "schedules.yml"
    path.write_text(text)
    (tmp_path / "tributary.yml").write_text("project: .\n")
    monkeypatch.setenv("TRIBUTARY_WORKSPACE", str(tmp_path))

    (found,) = load_schedules(None, {}, ["dev"])[1]

    assert found.job_variables["env"]["TRIBUTARY_WORKSPACE"] == place.format(here=tmp_path)


def test_workers_of_the_example_are_told_of_no_workspace(shipped: dict[str, DeclaredDeployment]) -> None:
    assert not [it for it in shipped.values() if "TRIBUTARY_WORKSPACE" in it.job_variables.get("env", {})]


class _Blocks:
    """A server that has these Secret blocks."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def block_names(self, type_slug: str) -> list[str]:
        return list(self._names) if type_slug == "secret" else []


def test_a_schedule_waits_until_its_service_is_set_up(shipped: dict[str, DeclaredDeployment]) -> None:
    every, name = list(shipped.values()), "reconcile-airbyte/production"

    kept, (note,) = with_their_services(cast(Server, _Blocks()), every)

    assert {it.full_name for it in every} - {it.full_name for it in kept} == {name}
    assert note.startswith(f"Left out until Airbyte is set up: {name}. Name it with `airbyte` in targets.yml")
    assert with_their_services(cast(Server, _Blocks("airbyte-api-url")), every) == (every, [])
    assert with_their_services(cast(Server, _Blocks()), every, [name]) == (every, []), "what is there is left alone"


def test_a_flow_of_the_users_own_is_found_in_the_workspace_and_by_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"ours_{tmp_path.name}"
    (tmp_path / "tributary.yml").write_text("project: .\n")
    (tmp_path / f"{name}.py").write_text("from prefect import flow\n\n@flow\ndef hourly(target: str = 'dev'): ...\n")
    (tmp_path / "schedules.yml").write_text(f"{HEAD}  hourly/mine: {{flow: {name}.hourly}}\n{PIPELINE}")
    monkeypatch.setenv("TRIBUTARY_WORKSPACE", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])

    own, ours = load_schedules(None, {}, ["dev"])[1]

    assert own.entrypoint == f"{name}.hourly"
    assert own.job_variables["env"]["PYTHONPATH"] == str(tmp_path)
    assert "PYTHONPATH" not in ours.job_variables["env"]
    assert sys.path[-1] == str(tmp_path), "nothing of the user's replaces a module of ours or of a library"
