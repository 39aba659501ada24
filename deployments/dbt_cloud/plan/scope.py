"""Which jobs of an account may be changed: a branch's, a team's production, or those with an identifier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from deployments.dbt_cloud.model.definition import JobDefinition
from deployments.dbt_cloud.model.job_object import Json, fingerprint
from deployments.dbt_cloud.model.names import (
    IDENTIFIED,
    Owner,
    Stamp,
    originals,
    split_identifier,
    stamp_of,
    stamped,
    without_stamp,
)
from flows.services.dbt_cloud.client import CloudClient
from infrastructure.plain_text import count_of

# As long as a real one, so that the description is cut at the same character.
_ANY_FINGERPRINT = "0" * 10


class Scope(Protocol):
    """Distinguishes our jobs from others, and names ours."""

    @property
    def title(self) -> str:
        """Return whose jobs these are, in words."""
        ...

    def name_of(self, job: JobDefinition) -> str:
        """Return the name of a job in dbt Cloud."""
        ...

    def key_of(self, job: Mapping[str, Any]) -> str | None:
        """Return the key of one of our jobs; None for a job without proof that it is ours."""
        ...

    def stamp(self, job: JobDefinition, document: Json, now: datetime) -> Json:
        """Return a job object with its stamp."""
        ...

    async def read(self, client: CloudClient, with_variables: bool = False) -> list[Json]:
        """Return the jobs of dbt Cloud that may include ours."""
        ...


@dataclass(frozen=True)
class OwnerScope:
    """The jobs of a branch and user, or of a team's production: proven by name and stamp.

    Attributes:
        environment_ids: only those in these environments; in all when empty.
    """

    owner: Owner
    project_ids: tuple[int, ...]
    environment_ids: frozenset[int] = frozenset()

    @property
    def title(self) -> str:
        """Return whose jobs these are, in words."""
        owner = self.owner
        return f"{owner.team}, production" if owner.branch is None else f"{owner.team}, {owner.branch} of {owner.user}"

    def name_of(self, job: JobDefinition) -> str:
        """Return the name of a job in dbt Cloud."""
        return self.owner.job_name(job.key)

    def key_of(self, job: Mapping[str, Any]) -> str | None:
        """Return the key of one of our jobs."""
        if self.environment_ids and job.get("environment_id") not in self.environment_ids:
            return None
        stamp = stamp_of(job)
        return stamp.job if stamp is not None and stamp.is_of(self.owner) else None

    def stamp(self, job: JobDefinition, document: Json, now: datetime) -> Json:
        """Return a job object with its stamp."""
        team, branch, user = self.owner.parts
        original_branch, original_user = originals(self.owner)
        stamp = Stamp(
            kind=self.owner.kind,
            team=team,
            branch=branch,
            user=user,
            job=job.key,
            deployed_at=now,
            fingerprint=_ANY_FINGERPRINT,
            original_branch=original_branch,
            original_user=original_user,
            schedule=_local_schedule(job),
        )
        return with_stamp(document, job.description, stamp)

    async def read(self, client: CloudClient, with_variables: bool = False) -> list[Json]:
        """Return the jobs whose names begin like ours: a page, whatever the size of the account."""
        found = await client.jobs(
            project_ids=self.project_ids, name_contains=self.owner.prefix, with_variables=with_variables
        )
        return [job for job in found if str(job.get("name", "")).startswith(self.owner.prefix)]


@dataclass(frozen=True)
class IdentifierScope:
    """The jobs whose names end in dbt-jobs-as-code's `[[identifier]]`, in these environments."""

    environments: frozenset[tuple[int, int]]

    @property
    def title(self) -> str:
        """Return whose jobs these are, in words."""
        return f"jobs with an identifier in {count_of(len(self.environments), 'environment')}"

    def name_of(self, job: JobDefinition) -> str:
        """Return the name of a job in dbt Cloud."""
        return f"{job.name} [[{job.key}]]"

    def key_of(self, job: Mapping[str, Any]) -> str | None:
        """Return the identifier."""
        if (job.get("project_id"), job.get("environment_id")) not in self.environments:
            return None
        return split_identifier(str(job.get("name") or ""))[1]

    def stamp(self, job: JobDefinition, document: Json, now: datetime) -> Json:
        """Return a job object with a stamp of its state at deployment."""
        schedule = _local_schedule(job)
        stamp = Stamp(IDENTIFIED, "", "", "", job.key, now, _ANY_FINGERPRINT, schedule=schedule)
        return with_stamp(document, job.description, stamp)

    async def read(self, client: CloudClient, with_variables: bool = False) -> list[Json]:
        """Return all jobs of the projects."""
        projects = {project for project, _ in self.environments}
        return await client.jobs(project_ids=projects, with_variables=with_variables)


def with_stamp(document: Json, description: str, stamp: Stamp) -> Json:
    """Return a job object with a stamp that contains its fingerprint."""
    account, project, name = document["account_id"], document["project_id"], document["name"]
    draft = {**document, "description": stamped(description, stamp, account, project, name)}
    final = replace(stamp, fingerprint=fingerprint(draft))
    return {**document, "description": stamped(description, final, account, project, name)}


def restamped(job: Mapping[str, Any], stamp: Stamp, changed: Mapping[str, Any]) -> Json:
    """Return a job with some fields changed and its stamp updated."""
    document = {**job, **changed}
    return with_stamp(document, without_stamp(str(job.get("description") or "")), stamp)


def projects_of(jobs: Iterable[JobDefinition], default: int | None) -> tuple[int, ...]:
    """Return the projects of jobs."""
    return tuple(sorted({project for job in jobs if (project := job.project_id or default) is not None}))


def _local_schedule(job: JobDefinition) -> str | None:
    return f"{job.local_cron}@{job.schedule_tz}" if job.local_cron is not None else None
