"""The work of each command, without the command line: read, plan, apply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from deployments.dbt_cloud.apply.applying import MAX_DELETIONS, Application, Applied
from deployments.dbt_cloud.apply.journal import Journal, cloud_folder
from deployments.dbt_cloud.apply.locks import job_locks
from deployments.dbt_cloud.files.config import YAML, Config
from deployments.dbt_cloud.model.changes import ChangeSet
from deployments.dbt_cloud.model.job_object import Json
from deployments.dbt_cloud.model.names import MAX_TEAM, Stamp, slug, stamp_of
from deployments.dbt_cloud.plan.cleanup import plan_cleanup
from deployments.dbt_cloud.plan.planning import Options, Reading, changed_by_hand, plan, read
from deployments.dbt_cloud.plan.scope import IdentifierScope, Scope
from flows.services.dbt_cloud.client import CloudClient
from flows.services.dbt_cloud.settings import CloudSettings
from infrastructure.errors import DriftError

Answer = TypeVar("Answer")


def with_client(settings: CloudSettings, do: Callable[[CloudClient], Awaitable[Answer]]) -> Answer:
    """Run a coroutine with a new client and return its result."""

    async def run() -> Answer:
        async with CloudClient(settings) as client:
            return await do(client)

    return asyncio.run(run())


async def planned(
    client: CloudClient, config: Config, scope: Scope, options: Options, now: datetime | None = None
) -> tuple[ChangeSet, Reading]:
    """Return the changes, and what they were computed from."""
    reading = await read(client, scope, config.jobs)
    now = now or datetime.now(UTC)
    return plan(client.settings.account_id, config, scope, reading, now, options), reading


async def deploy(
    client: CloudClient,
    config: Config,
    scope: Scope,
    state_root: Path,
    options: Options | None = None,
    max_deletions: int = MAX_DELETIONS,
    expected: ChangeSet | None = None,
) -> tuple[ChangeSet, Applied, Path]:
    """Deploy the files to dbt Cloud while holding the locks of their jobs on this machine.

    Args:
        expected: a plan that was reviewed: other changes are refused.

    Returns:
        The changes, their result, and the journal.

    Raises:
        DriftError: the plan is not the one that was expected.
        ConfigError: it deletes too much, or something in the files is wrong.
    """
    folder = cloud_folder(state_root, client.settings.account_id)
    locks = job_locks(folder / "locks", [scope.name_of(job) for job in config.jobs])
    with Journal(folder / "journal") as journal:
        async with locks:
            changes, reading = await planned(client, config, scope, options or Options())
            if expected is not None and expected.digest() != changes.digest():
                raise DriftError("The changes are no longer those of the plan. Plan again, and review it again.")
            application = Application(client, config, scope, journal)
            return changes, await application.apply(changes, reading.jobs, max_deletions), journal.path


async def clean(
    client: CloudClient, changes: ChangeSet, state_root: Path, max_deletions: int = MAX_DELETIONS
) -> tuple[Applied, Path]:
    """Apply a cleanup and return its result, and the journal."""
    with Journal(cloud_folder(state_root, client.settings.account_id) / "journal") as journal:
        application = Application(client, Config(YAML, ()), IdentifierScope(frozenset()), journal)
        return await application.apply(changes, (), max_deletions), journal.path


async def cleanup_plan(
    client: CloudClient,
    team: str,
    project_ids: Sequence[int],
    older_than_days: float,
    branches: frozenset[str] | None,
    options: Options,
) -> ChangeSet:
    """Return the branch jobs of a team to delete."""
    jobs = await client.jobs(project_ids=project_ids, name_contains=f"{slug(team, MAX_TEAM)}-")
    account_id = client.settings.account_id
    return plan_cleanup(account_id, team, jobs, datetime.now(UTC), older_than_days, branches, options)


def listed(jobs: Sequence[Json], team: str | None) -> list[dict[str, Any]]:
    """Return jobs for `list`: what each is, whose, and since when; of one team, or all."""
    rows: list[dict[str, Any]] = []
    for job in jobs:
        stamp = stamp_of(job)
        if team is not None and not (stamp is not None and stamp.is_of_team(team)):
            continue
        rows.append(_row(job, stamp))
    return rows


def _row(job: Json, stamp: Stamp | None) -> dict[str, Any]:
    schedule = job.get("schedule") or {}
    is_scheduled = (job.get("triggers") or {}).get("schedule")
    return {
        "id": job["id"],
        "name": job["name"],
        "project_id": job["project_id"],
        "environment_id": job["environment_id"],
        "kind": {None: "other", "b": "branch", "p": "production", "i": "identifier"}[stamp.kind if stamp else None],
        "branch": stamp.branch_name if stamp is not None and stamp.branch else None,
        "user": (stamp.original_user or stamp.user) if stamp is not None and stamp.user else None,
        "deployed_at": stamp.deployed_at if stamp is not None else None,
        "schedule": (schedule.get("date") or {}).get("cron") or schedule.get("cron") if is_scheduled else None,
        "local_schedule": stamp.schedule if stamp is not None else None,
        "steps": job.get("execute_steps") or [],
        "by_hand": changed_by_hand(job),
    }
