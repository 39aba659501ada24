"""Schedules that follow a local clock are moved when the clocks change, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deployments.dbt_cloud.apply import resync
from deployments.dbt_cloud.apply.resync import Moved, move_schedules, resync_cloud_schedules
from deployments.dbt_cloud.apply.work import deploy
from deployments.dbt_cloud.model.names import stamp_of
from deployments.dbt_cloud.plan.planning import changed_by_hand
from flows.services.dbt_cloud.client import CloudClient
from infrastructure.errors import ConfigError
from tests.support.cloud.jobs import BRANCH, Cloud, config, job, scope

WINTER, SUMMER = datetime(2026, 12, 15, tzinfo=UTC), datetime(2026, 7, 15, tzinfo=UTC)


def moved(cloud: Cloud, now: datetime) -> list[Moved]:
    return cloud.do(lambda client: move_schedules(client, now))


def cron(cloud: Cloud, name: str) -> str:
    return cloud.jobs[BRANCH.job_name(name)]["schedule"]["date"].get("cron", "")


@pytest.fixture
def deployed(cloud: Cloud) -> Cloud:
    files = config(
        job("london", schedule_type="custom_cron", schedule_cron="30 6 * * 1-5", schedule_tz="Europe/London"),
        job("tokyo", schedule_hours=[6], schedule_tz="Asia/Tokyo"),
        job("utc", schedule_hours=[6]),
    )

    async def work(client: CloudClient) -> None:
        await deploy(client, files, scope(), cloud.state)

    cloud.do(work)
    # Whatever the day on which the tests run.
    moved(cloud, WINTER)
    assert (cron(cloud, "london"), cron(cloud, "tokyo")) == ("30 6 * * 1-5", "0 21 * * *")
    return cloud


def test_a_schedule_is_moved_in_spring_and_back_in_autumn(deployed: Cloud) -> None:
    before = deployed.jobs
    (london,) = moved(deployed, SUMMER)
    assert (london.was, london.now, london.problem) == ("30 6 * * 1-5", "30 5 * * 1-5", "")
    assert cron(deployed, "london") == "30 5 * * 1-5"
    assert moved(deployed, SUMMER) == []
    # It is not taken for a change by hand, and it is no new deployment either: cleanup counts from the last one.
    there = deployed.jobs[BRANCH.job_name("london")]
    assert changed_by_hand(there) is None
    stamp, earlier = stamp_of(there), stamp_of(before[BRANCH.job_name("london")])
    assert stamp
    assert earlier
    assert (stamp.deployed_at, stamp.schedule) == (earlier.deployed_at, "30 6 * * 1-5@Europe/London")
    assert deployed.jobs[BRANCH.job_name("utc")] == before[BRANCH.job_name("utc")]
    moved(deployed, WINTER)
    assert cron(deployed, "london") == "30 6 * * 1-5"


def test_a_job_changed_by_hand_is_not_moved_and_that_is_said(deployed: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    london = deployed.jobs[BRANCH.job_name("london")]
    noon = {"cron": "0 12 * * *", "date": {"type": "custom_cron", "cron": "0 12 * * *"}}
    deployed.account.by_hand(london["id"], schedule={**london["schedule"], **noon})
    monkeypatch.setattr(resync, "settings_from", lambda environ: deployed.settings)
    with pytest.raises(ConfigError, match=r"1 of 1 schedules could not be moved.*changed by hand since"):
        resync_cloud_schedules.fn()
    assert cron(deployed, "london") == "0 12 * * *"
