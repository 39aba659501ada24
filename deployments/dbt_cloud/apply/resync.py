"""Correct schedules with a time zone when the clocks change: compile them again, and send those that differ."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from prefect import flow

from deployments.dbt_cloud.model.job_object import Json, sendable, version
from deployments.dbt_cloud.model.names import Stamp, stamp_of
from deployments.dbt_cloud.model.time_zones import utc_cron
from deployments.dbt_cloud.plan.planning import changed_by_hand
from deployments.dbt_cloud.plan.scope import restamped
from flows.alerts.hooks import with_alerts
from flows.engine.context.reporting import current_reporter
from flows.services.dbt_cloud.client import CloudClient
from flows.services.dbt_cloud.settings import settings_from
from infrastructure.errors import ConfigError, TributaryError


@dataclass(frozen=True)
class Moved:
    """A schedule that was moved, or should have been.

    Attributes:
        problem: why it was not moved; empty when it was.
    """

    name: str
    job_id: int
    was: str
    now: str
    problem: str = ""


@with_alerts
@flow(name="resync-cloud-schedules")
def resync_cloud_schedules(project_ids: list[int] | None = None, dry_run: bool = False) -> list[Moved]:
    """Move the schedules of dbt Cloud jobs whose time zone has another offset at their next run.

    The stamp of every job has its time zone, so that no file is needed and the jobs of branches are moved too.
    Run it every hour: a job that runs at most hourly then never runs at the wrong hour.

    Args:
        project_ids: all of the account when None.
    """
    settings = settings_from(os.environ)

    async def resync() -> list[Moved]:
        async with CloudClient(settings) as client:
            return await move_schedules(client, datetime.now(UTC), project_ids or (), dry_run)

    moved = asyncio.run(resync())
    for it in moved:
        current_reporter().note(f"{it.name}: {it.was} → {it.now}{f' (not moved: {it.problem})' if it.problem else ''}")
    if failed := [it for it in moved if it.problem]:
        raise ConfigError(
            f"{len(failed)} of {len(moved)} schedules could not be moved and run at the wrong hour: "
            + "; ".join(f"{it.name}: {it.problem}" for it in failed[:5])
        )
    return moved


async def move_schedules(
    client: CloudClient, now: datetime, project_ids: Sequence[int] = (), dry_run: bool = False
) -> list[Moved]:
    """Move the schedules that are due and return them."""
    jobs = await client.jobs(project_ids=project_ids)
    due: list[tuple[Json, Stamp, Moved]] = []
    for job in jobs:
        stamp = stamp_of(job)
        if stamp is None or stamp.schedule is None or not cast(Json, job.get("triggers") or {}).get("schedule"):
            continue
        cron, _, zone = stamp.schedule.rpartition("@")
        was = str(cast(Json, cast(Json, job.get("schedule") or {}).get("date") or {}).get("cron") or "")
        try:
            to_be, problem = utc_cron(cron, zone, now), ""
        except ConfigError as exc:
            to_be, problem = "", str(exc)
        if not problem and to_be == was:
            continue
        due.append((job, stamp, Moved(job["name"], job["id"], was, to_be, problem or changed_by_hand(job) or "")))
    if dry_run:
        return [moved for *_, moved in due]
    return list(await asyncio.gather(*(_move(client, *it) for it in due)))


async def _move(client: CloudClient, job: Json, stamp: Stamp, moved: Moved) -> Moved:
    if moved.problem:
        return moved
    try:
        fresh = await client.job(moved.job_id)
        if fresh is None or version(fresh) != version(job):
            return Moved(moved.name, moved.job_id, moved.was, moved.now, "changed meanwhile")
        schedule: dict[str, Any] = {**cast(Json, fresh["schedule"]), "cron": moved.now}
        schedule["date"] = {"type": "custom_cron", "cron": moved.now}
        await client.update_job(moved.job_id, sendable(fresh, restamped(fresh, stamp, {"schedule": schedule})))
    except TributaryError as exc:
        return Moved(moved.name, moved.job_id, moved.was, moved.now, str(exc))
    return moved
