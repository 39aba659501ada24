"""Apply a change set: create jobs, verify them, change others, and only then delete."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from deployments.dbt_cloud.apply.journal import DONE, FAILED, INTENT, Journal
from deployments.dbt_cloud.files.config import Config, in_order
from deployments.dbt_cloud.model.changes import CREATE, DELETE, REFRESH, UPDATE, ChangeSet, JobChange
from deployments.dbt_cloud.model.definition import ENV_PREFIX, SECRET_PREFIX
from deployments.dbt_cloud.model.job_object import Json, compared, differences, sendable, version
from deployments.dbt_cloud.plan.planning import upstream_id, wanted_object
from deployments.dbt_cloud.plan.scope import Scope
from flows.services.dbt_cloud.client import CloudClient
from flows.services.dbt_cloud.transport import AnswerLost, look_for
from infrastructure.errors import ConfigError, DriftError, TributaryError, UpstreamUnavailable
from infrastructure.plain_text import count_of

# A request whose answer was lost may still arrive: its job is looked for this often before it is sent again.
LOOKS = 2
SENDS = 4
MAX_DELETIONS = 50


@dataclass
class Applied:
    """The result of a change set.

    Attributes:
        failed: name of a job and why, in words.
        removed: second jobs of the same name, made by a lost answer or by another deployment at the same time.
    """

    created: dict[str, int] = field(default_factory=dict)
    updated: list[str] = field(default_factory=list)
    refreshed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def check_budget(changes: ChangeSet, max_deletions: int) -> None:
    """Refuse a whole change set that deletes more jobs than allowed.

    Raises:
        ConfigError: it does.
    """
    count = len(changes.of(DELETE))
    if count > max_deletions:
        raise ConfigError(
            f"{count_of(count, 'job')} would be deleted and at most {max_deletions} may be; nothing was changed. "
            f"If that is meant, allow it: --max-deletions {count}."
        )


def check_values(changes: ChangeSet) -> None:
    """Refuse a change set with values from environment variables that are not set.

    Raises:
        ConfigError: lists all of their names.
    """
    missing = {
        value.removeprefix(ENV_PREFIX)
        for change in changes.of(CREATE, UPDATE)
        if change.definition is not None
        for name, value in change.definition.environment_variables.items()
        if change.variables.get(name) == "set" and value.startswith(ENV_PREFIX)
    }
    if missing:
        raise ConfigError(f"Not set in the environment, and nothing was changed: {', '.join(sorted(missing))}.")


class Application:
    """One change set that is being applied."""

    def __init__(self, client: CloudClient, config: Config, scope: Scope, journal: Journal) -> None:
        self.client, self.config, self.scope, self.journal = client, config, scope, journal
        self._ids: dict[str, int] = {}
        self._jobs: Sequence[Json] = ()
        self.done = Applied()

    async def apply(self, changes: ChangeSet, jobs: Sequence[Json], max_deletions: int = MAX_DELETIONS) -> Applied:
        """Apply a change set; failures are in the result, and after a failure nothing is deleted.

        Args:
            jobs: those that the change set was made from.

        Raises:
            ConfigError: it deletes more than it may, or a value of a secret is missing; nothing was changed.
        """
        check_budget(changes, max_deletions)
        check_values(changes)
        self._jobs = jobs
        self._ids = {change.key: change.job_id for change in changes.only(JobChange) if change.job_id is not None}
        await self._create(changes.of(CREATE))
        await self._all(changes.of(UPDATE), self._update)
        await self._all(changes.of(REFRESH), self._refresh)
        if not self.done.failed:
            await self._all(changes.of(DELETE), self._delete)
        elif skipped := len(changes.of(DELETE)):
            self.done.notes.append(f"{skipped} deletions were skipped, because a change before them failed.")
        return self.done

    async def _all(self, changes: Sequence[JobChange], do: Callable[[JobChange], Awaitable[None]]) -> None:
        await asyncio.gather(*(self._one(change, do) for change in changes))

    async def _one(self, change: JobChange, do: Callable[[JobChange], Awaitable[None]]) -> None:
        try:
            await do(change)
        except TributaryError as exc:
            self.done.failed[change.name] = str(exc)
            self.journal.write(FAILED, change.action, change.name, change.job_id, error=str(exc))

    # -- creating ------------------------------------------------------------------------------------------------

    async def _create(self, changes: Sequence[JobChange]) -> None:
        waiting = {change.key: change for change in changes}
        for step in in_order(self.config.jobs) if waiting else []:
            await self._all([waiting[job.key] for job in step if job.key in waiting], self._create_one)
        if self.done.created:
            await self._verify(waiting)

    async def _create_one(self, change: JobChange) -> None:
        job = change.definition
        assert job is not None
        document = self._document(change)
        self.journal.write(INTENT, CREATE, change.name, None)
        created = await self._post(change, document)
        job_id = self._ids[change.key] = int(created["id"])
        self.journal.write(DONE, CREATE, change.name, job_id)
        self.done.created[change.name] = job_id
        if job.self_deferring:
            await self._send(change, created, job_id)
        await self._write_variables(change, job_id, is_new=True)

    async def _post(self, change: JobChange, document: Json) -> Json:
        lost = ""
        for _ in range(SENDS):
            try:
                return await self.client.create_job(sendable({}, document))
            except AnswerLost as exc:
                lost = str(exc)
                pause_seconds = self.client.settings.backoff_seconds
                if found := await look_for(lambda: self._find(change), LOOKS, pause_seconds):
                    return found
        raise UpstreamUnavailable(f"{lost} It was looked for and sent again {SENDS} times. Deploy again later.")

    async def _find(self, change: JobChange) -> Json | None:
        """Return a job whose creation was not answered, the oldest one if there are two; None when there is none."""
        found = await self.client.jobs(project_ids=[change.project_id], name_contains=change.name)
        ours = (job for job in found if job["name"] == change.name and self.scope.key_of(job) == change.key)
        return next(ours, None)

    async def _verify(self, wanted: Mapping[str, JobChange]) -> None:
        """Verify that each created job exists once; of two, delete the newer one, in every process alike."""
        there = await self.scope.read(self.client)
        by_key: dict[str, list[Json]] = {}
        for job in there:
            if (key := self.scope.key_of(job)) is not None and key in wanted:
                by_key.setdefault(key, []).append(job)
        for key, change in wanted.items():
            if change.name not in self.done.created:
                continue
            jobs = sorted(by_key.get(key, []), key=lambda job: job["id"])
            if not jobs:
                self.done.failed[change.name] = (
                    f"dbt Cloud reported job {self.done.created[change.name]} as created, but does not list it."
                )
                continue
            if (kept := jobs[0]["id"]) != self.done.created[change.name]:
                self.done.notes.append(
                    f"{change.name} was created by another deployment at the same time: {kept} stays."
                )
                self._ids[key] = self.done.created[change.name] = kept
            for doubled in jobs[1:]:
                await self._one(change, lambda change, job=doubled: self._remove(change, job))
            if different := differences(compared(self._document(replace(change, job_id=kept))), compared(jobs[0])):
                self.done.notes.append(f"{change.name}: dbt Cloud changed the value of {', '.join(sorted(different))}.")

    async def _remove(self, change: JobChange, job: Json) -> None:
        self.journal.write(INTENT, DELETE, change.name, job["id"], before=job, reason="a second job of the same name")
        await self.client.delete_job(job["id"])
        self.journal.write(DONE, DELETE, change.name, job["id"])
        self.done.removed.append(job["id"])

    # -- changing ------------------------------------------------------------------------------------------------

    async def _update(self, change: JobChange) -> None:
        there = await self._fresh(change)
        assert change.job_id is not None
        if change.fields or "taken over" in change.reason:
            self.journal.write(INTENT, UPDATE, change.name, change.job_id, before=there)
            await self._send(change, there, change.job_id)
            self.journal.write(DONE, UPDATE, change.name, change.job_id)
        await self._write_variables(change, change.job_id, is_new=False)
        self.done.updated.append(change.name)

    async def _refresh(self, change: JobChange) -> None:
        there = await self._fresh(change)
        assert change.job_id is not None
        await self._send(change, there, change.job_id)
        self.done.refreshed.append(change.name)

    async def _fresh(self, change: JobChange) -> Json:
        """Read a job again just before it is written.

        Raises:
            DriftError: it was deleted or changed since the change set was made.
        """
        assert change.job_id is not None
        there = await self.client.job(change.job_id)
        if there is None:
            raise DriftError(f"The job {change.name} ({change.job_id}) was deleted meanwhile. Plan again.")
        if change.seen is not None and version(there) != change.seen:
            raise DriftError(f"The job {change.name} ({change.job_id}) was changed meanwhile. Plan again.")
        return there

    async def _send(self, change: JobChange, there: Json, job_id: int) -> None:
        document = self._document(replace(change, job_id=job_id))
        await self.client.update_job(job_id, sendable(there, document))

    def _document(self, change: JobChange) -> Json:
        job = change.definition
        assert job is not None
        upstream = upstream_id(job, self.config, self._ids, self._jobs)
        if job.run_after is not None and upstream is None:
            raise UpstreamUnavailable(f"The job {job.run_after.job!r}, which starts it, was not created.")
        return wanted_object(job, self.scope, self.client.settings.account_id, change, datetime.now(UTC), upstream)

    # -- deleting ------------------------------------------------------------------------------------------------

    async def _delete(self, change: JobChange) -> None:
        assert change.job_id is not None
        there = await self.client.job(change.job_id)
        if there is None:
            self.done.notes.append(f"{change.name} ({change.job_id}) was already deleted.")
            return
        if version(there) != change.seen or there["name"] != change.name:
            raise DriftError(f"The job {change.name} ({change.job_id}) was changed meanwhile and is kept. Plan again.")
        variables = await self.client.job_variables(change.project_id, change.job_id)
        kept = {name: entry.get("value") for name, entry in variables.items() if not name.startswith(SECRET_PREFIX)}
        self.journal.write(
            INTENT, DELETE, change.name, change.job_id, before=there, variables=kept, reason=change.reason
        )
        await self.client.delete_job(change.job_id)
        self.journal.write(DONE, DELETE, change.name, change.job_id)
        self.done.deleted.append(change.name)

    # -- environment variables -----------------------------------------------------------------------------------

    async def _write_variables(self, change: JobChange, job_id: int, is_new: bool) -> None:
        if not change.variables or change.definition is None:
            return
        project = change.project_id
        there: Mapping[str, Any] = {} if is_new else await self.client.job_variables(project, job_id)
        values = change.definition.environment_variables
        for name, what in change.variables.items():
            variable_id = there[name]["id"] if name in there else None
            if what == "delete":
                if variable_id is not None:
                    await self.client.delete_variable(project, variable_id)
                continue
            value = values[name]
            try:
                await self.client.set_variable(project, job_id, name, value, variable_id)
            except AnswerLost:
                now_there = await self.client.job_variables(project, job_id)
                again = now_there.get(name, {}).get("id")
                await self.client.set_variable(project, job_id, name, value, again)
