"""Deploying to an account on a network that loses answers, beside others who do the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from deployments.dbt_cloud.apply.applying import Applied
from deployments.dbt_cloud.apply.work import deploy, planned
from deployments.dbt_cloud.files.config import Config
from deployments.dbt_cloud.model.changes import ChangeSet, JobChange
from deployments.dbt_cloud.model.names import Owner, stamp_of
from deployments.dbt_cloud.plan.planning import Options
from flows.services.dbt_cloud.client import CloudClient
from infrastructure.errors import ConfigError, DriftError
from tests.support.cloud.contract import JOB_REQUEST
from tests.support.cloud.jobs import BRANCH, PROJECT, Cloud, config, job, scope
from tests.support.cloud.server import BROKEN, GATEWAY, LOST, LOST_BEFORE, TOKEN, TWICE

PREFIX = BRANCH.prefix


def deployed(cloud: Cloud, files: Config, owner: Owner = BRANCH, **options: Any) -> Applied:
    settings = {"timeout_seconds": options.pop("timeout_seconds", 10.0)}
    allowed = Options(**{name: options.pop(name) for name in ("force", "adopt") if name in options})

    async def work(client: CloudClient) -> Applied:
        return (await deploy(client, files, scope(owner), cloud.state, allowed, **options))[1]

    return cloud.do(work, **settings)


def plan_of(cloud: Cloud, files: Config, owner: Owner = BRANCH) -> ChangeSet:
    async def work(client: CloudClient) -> ChangeSet:
        return (await planned(client, files, scope(owner), Options()))[0]

    return cloud.do(work)


def test_every_kind_of_job_is_created_as_it_is_planned_and_then_left_alone(cloud: Cloud) -> None:
    files = config(
        job("hourly", schedule_interval=2),
        job("days", schedule_type="weekly", schedule_days=[7, 1], schedule_hours=[6]),
        job("interval", schedule_type="interval_cron", schedule_interval=4, schedule_days=[1, 2]),
        job("local", schedule_type="custom_cron", schedule_cron="30 6 * * 1-5", schedule_tz="Europe/London"),
        job("on-request", schedule_type="manual", github_webhook=True),
        job("itself", self_deferring=True, dbt_version="latest", timeout_seconds=60, generate_docs=True),
        job("second", run_after={"job": "third", "statuses": ["success", "error"]}),
        job("third", environment_variables={"DBT_REGION": "eu", "DBT_ENV_SECRET_KEY": "s3cr3t"}),
        job("compared", run_compare_changes=True, deferring_environment_id=22, description="d" * 250),
    )
    done = deployed(cloud, files)
    assert (len(done.created), done.failed, done.notes) == (9, {}, [])
    jobs = cloud.jobs
    itself, second, third = (jobs[PREFIX + name] for name in ("itself", "second", "third"))
    assert itself["deferring_job_definition_id"] == itself["id"]
    assert second["job_completion_trigger_condition"]["condition"] == {
        "job_id": third["id"],
        "project_id": PROJECT,
        "statuses": [10, 20],
    }
    assert set(cloud.account.variables[third["id"]]) == {"DBT_REGION", "DBT_ENV_SECRET_KEY"}
    assert jobs[PREFIX + "days"]["schedule"]["date"] == {"type": "days_of_week", "days": [0, 1]}
    # dbt Cloud has filled in, humanised and reordered what it does; none of that is a difference.
    changes = plan_of(cloud, files)
    assert changes.is_empty, changes.text()
    assert deployed(cloud, files).created == {}


def test_what_changed_in_the_files_is_changed_and_what_is_gone_is_deleted(cloud: Cloud) -> None:
    deployed(cloud, config(job("a"), job("b", environment_variables={"DBT_REGION": "eu"}), job("c")))
    before = cloud.jobs[PREFIX + "a"]
    files = config(job("a", threads=8), job("b", environment_variables={"DBT_REGION": "us"}))
    changes = plan_of(cloud, files)
    assert {change.key: change.action for change in changes.only(JobChange)} == {
        "a": "update",
        "b": "update",
        "c": "delete",
    }
    assert [(it.path, it.old, it.new) for it in changes.changes[0].fields] == [("threads", 4, 8)]
    done = deployed(cloud, files)
    assert (done.updated, done.deleted) == ([PREFIX + "a", PREFIX + "b"], [PREFIX + "c"])
    assert cloud.jobs.keys() == {PREFIX + "a", PREFIX + "b"}
    assert cloud.jobs[PREFIX + "a"]["id"] == before["id"]
    assert cloud.account.variables[cloud.jobs[PREFIX + "b"]["id"]]["DBT_REGION"]["value"] == "us"


@pytest.mark.parametrize("kind", [LOST, LOST_BEFORE, GATEWAY, TWICE, BROKEN])
def test_a_creation_whose_answer_is_lost_is_looked_for_and_never_doubled(cloud: Cloud, kind: str) -> None:
    cloud.account.faults.planned = [("POST", "/jobs/", kind), ("POST", "/jobs/", kind)]
    done = deployed(cloud, config(job("a"), job("b"), job("c")), timeout_seconds=0.5)
    assert done.failed == {}
    assert cloud.jobs.keys() == {PREFIX + "a", PREFIX + "b", PREFIX + "c"}
    assert plan_of(cloud, config(job("a"), job("b"), job("c"))).is_empty


def test_a_creation_that_fails_leaves_every_other_job_where_it_was(cloud: Cloud) -> None:
    """Where creations fail and deletions go through, an account ends without jobs (dbt-jobs-as-code#158)."""
    deployed(cloud, config(job("old")))
    cloud.account.project_variables[PROJECT].clear()
    new = job("new", environment_variables={"DBT_REGION": "eu"})
    done = deployed(cloud, config(new))
    assert "DBT_REGION is not declared by the project" in done.failed[PREFIX + "new"]
    assert done.deleted == []
    assert "1 deletions were skipped" in done.notes[0]
    assert PREFIX + "old" in cloud.jobs


def test_a_job_changed_by_hand_is_shown_and_not_overwritten(cloud: Cloud) -> None:
    files = config(job("a"))
    deployed(cloud, files)
    cloud.jobs[PREFIX + "a"]["execute_steps"] = ["dbt build --full-refresh"]
    changes = plan_of(cloud, files)
    assert "changed by hand since" in changes.text()
    assert 'execute_steps: ["dbt build --full-refresh"] → ["dbt build"]' in changes.text()
    deployed(cloud, files)
    assert cloud.jobs[PREFIX + "a"]["execute_steps"] == ["dbt build --full-refresh"]
    # Nor is it deleted when it is gone from the files.
    assert deployed(cloud, config(job("b"))).deleted == []
    assert deployed(cloud, files, force=True).updated == [PREFIX + "a"]
    assert cloud.jobs[PREFIX + "a"]["execute_steps"] == ["dbt build"]


def test_what_others_have_is_never_touched(cloud: Cloud) -> None:
    """Another branch, another user, another team with the same beginning, production, and jobs made by hand."""
    deployed(cloud, config(job("a")), Owner("analytics-team", "feature/new-analysis", "john"))
    deployed(cloud, config(job("a")), Owner("analytics-team", "feature/new", "analysis-john-doe"))
    deployed(cloud, config(job("a")), Owner("analytics-team"))
    cloud.stranger("analytics-team-feature-new-analysis-john-doe-handmade")
    others = {name: dict(it) for name, it in cloud.jobs.items()}
    deployed(cloud, config(job("b")))
    deployed(cloud, config(job("c")))
    mine = {PREFIX + "c"}
    assert cloud.jobs.keys() == others.keys() | mine
    assert {name: it for name, it in cloud.jobs.items() if name not in mine} == others


def test_a_job_of_the_right_name_that_is_not_ours_is_taken_over_only_when_asked(cloud: Cloud) -> None:
    there = cloud.stranger(PREFIX + "a", dbt_version="1.9.0-latest")
    (change,) = plan_of(cloud, config(job("a"))).changes
    assert (change.action, change.job_id) == ("blocked", there["id"])
    assert deployed(cloud, config(job("a"))).created == {}
    assert deployed(cloud, config(job("a")), adopt=True).updated == [PREFIX + "a"]
    taken = cloud.jobs[PREFIX + "a"]
    assert taken["id"] == there["id"]
    assert stamp_of(taken)
    assert taken["dbt_version"] is None


def test_more_deletions_than_allowed_are_refused_as_a_whole(cloud: Cloud) -> None:
    deployed(cloud, config(job("a"), job("b"), job("c")))
    with pytest.raises(ConfigError, match="3 jobs would be deleted and at most 2 may be; nothing was changed"):
        deployed(cloud, config(job("d")), max_deletions=2)
    assert len(cloud.jobs) == 3


def test_a_plan_that_somebody_looked_at_is_what_is_done_or_nothing_is(cloud: Cloud) -> None:
    files = config(job("a"))
    seen = ChangeSet.of_document(plan_of(cloud, files).as_document())
    with pytest.raises(DriftError, match="no longer those of the plan"):
        deployed(cloud, config(job("a", threads=16), job("b")), expected=seen)
    assert cloud.jobs == {}
    assert len(deployed(cloud, files, expected=seen).created) == 1


def test_a_job_that_changes_between_plan_and_write_is_not_overwritten(cloud: Cloud) -> None:
    deployed(cloud, config(job("a")))
    read = cloud.account.job

    def changed_before_it_is_read(job_id: int) -> dict[str, Any]:
        cloud.account.jobs[job_id]["settings"]["threads"] = 12
        return read(job_id)

    cloud.account.job = changed_before_it_is_read
    done = deployed(cloud, config(job("a", generate_docs=True)))
    assert "was changed meanwhile. Plan again" in done.failed[PREFIX + "a"]
    assert cloud.jobs[PREFIX + "a"]["generate_docs"] is False


def test_branches_deploy_at_once_and_the_same_branch_one_after_another(cloud: Cloud) -> None:
    owners = [Owner("analytics-team", f"feature/b{number % 8}", "jane") for number in range(16)]
    files = config(job("a"), job("b"))
    cloud.account.faults.rate = 0.05

    async def work(client: CloudClient) -> list[Applied]:
        return [
            done
            for _, done, _ in await asyncio.gather(*(deploy(client, files, scope(it), cloud.state) for it in owners))
        ]

    done = cloud.do(work, timeout_seconds=1.0)
    assert [it.failed for it in done if it.failed] == []
    assert len(cloud.jobs) == 16


def test_two_machines_that_deploy_the_same_branch_at_once_leave_one_job(cloud: Cloud, tmp_path: Path) -> None:
    """They share no lock: whoever sees two jobs keeps the older one."""
    files = config(job("a"), job("b"))

    async def work(client: CloudClient) -> None:
        await asyncio.gather(*(deploy(client, files, scope(), tmp_path / str(machine)) for machine in range(4)))

    cloud.account.latency_seconds = 0.05
    cloud.do(work)
    assert cloud.jobs.keys() == {PREFIX + "a", PREFIX + "b"}


def test_a_second_job_of_one_name_is_deleted_and_the_older_one_kept(cloud: Cloud) -> None:
    deployed(cloud, config(job("a")))
    first = cloud.jobs[PREFIX + "a"]
    cloud.account.create(
        {name: first[name] for name in first if name in JOB_REQUEST["properties"] and first[name] is not None}
    )
    done = deployed(cloud, config(job("a")))
    assert done.deleted == [PREFIX + "a"]
    assert cloud.jobs[PREFIX + "a"]["id"] == first["id"]


def test_the_limit_of_the_account_is_waited_for(cloud: Cloud) -> None:
    cloud.account.faults.limit_per_minute = 4
    done = deployed(cloud, config(*(job(f"job-{number}") for number in range(6))))
    assert done.failed == {}
    assert len(cloud.jobs) == 6


def test_neither_token_nor_secret_is_in_what_is_written_down(cloud: Cloud) -> None:
    files = config(job("a", environment_variables={"DBT_ENV_SECRET_KEY": "s3cr3t"}))
    assert "s3cr3t" not in plan_of(cloud, files).text() + str(plan_of(cloud, files).as_document())
    deployed(cloud, files)
    # Sent once: it can't be compared, and is not sent again.
    assert plan_of(cloud, files).is_empty
    deployed(cloud, config(job("b")))
    text = "".join(path.read_text() for path in cloud.state.rglob("*.jsonl"))
    assert '"delete"' in text
    assert "s3cr3t" not in text
    assert TOKEN not in text


def test_a_secret_that_the_environment_lacks_stops_everything_beforehand(cloud: Cloud) -> None:
    files = config(job("a"), job("b", environment_variables={"DBT_ENV_SECRET_KEY": "env:THE_KEY"}))
    with pytest.raises(ConfigError, match="Not set in the environment, and nothing was changed: THE_KEY"):
        deployed(cloud, files)
    assert cloud.jobs == {}


def test_variables_are_read_in_bulk_where_the_list_has_them_and_one_by_one_where_not(cloud: Cloud) -> None:
    files = config(*(job(f"job-{number}", environment_variables={"DBT_REGION": "eu"}) for number in range(5)))
    deployed(cloud, files)
    for lists, requests in ((True, 1), (False, 6)):
        cloud.account.lists_variables = lists
        cloud.account.requests.clear()
        assert plan_of(cloud, files).is_empty
        assert cloud.account.requests["GET"] == requests
