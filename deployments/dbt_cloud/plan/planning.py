"""Compare job files with dbt Cloud and return the changes; change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from deployments.dbt_cloud.files.config import Config, in_order
from deployments.dbt_cloud.model.changes import (
    BLOCKED,
    CREATE,
    DELETE,
    REFRESH,
    UPDATE,
    ChangeSet,
    JobChange,
)
from deployments.dbt_cloud.model.definition import SECRET_PREFIX, JobDefinition
from deployments.dbt_cloud.model.job_object import (
    Json,
    compared,
    completion_trigger,
    differences,
    fingerprint,
    job_object,
    version,
)
from deployments.dbt_cloud.model.names import stamp_of
from deployments.dbt_cloud.plan.scope import Scope
from flows.services.dbt_cloud.client import CloudClient
from infrastructure.errors import ConfigError
from infrastructure.plan import UNCHANGED, FieldChange

# How often the last use of a branch is written to its jobs: cleanup counts in days.
REFRESH_AFTER = timedelta(hours=20)


@dataclass(frozen=True)
class Options:
    """What the user allows.

    Attributes:
        force: overwrite and delete jobs that were changed by hand.
        adopt: take over a job of the same name that was not deployed by this tool.
        write_secrets: send secrets again, which can't be compared.
    """

    force: bool = False
    adopt: bool = False
    write_secrets: bool = False


@dataclass(frozen=True)
class Reading:
    """The jobs in dbt Cloud.

    Attributes:
        jobs: all that were read, ours and others'.
        variables: those that our jobs override, by job id and name; values of secrets are masked.
    """

    jobs: tuple[Json, ...]
    variables: Mapping[int, Mapping[str, str]]


async def read(client: CloudClient, scope: Scope, jobs: Sequence[JobDefinition] = ()) -> Reading:
    """Read the jobs of a scope and the variables they override: from the list where it has them, else one by one."""
    found = await scope.read(client, with_variables=True)
    linked = {job.linked_id for job in jobs if job.linked_id is not None}
    missing = [job_id for job_id in linked if job_id not in {job["id"] for job in found}]
    found += [job for job in await asyncio.gather(*map(client.job, missing)) if job is not None]
    ours = [job for job in found if scope.key_of(job) is not None or job["id"] in linked]
    return Reading(tuple(found), await variables_of(client, ours))


async def variables_of(client: CloudClient, jobs: Sequence[Json]) -> dict[int, dict[str, str]]:
    """Return what jobs override, by job id and name."""
    out: dict[int, dict[str, str]] = {}
    silent: list[Json] = []
    for job in jobs:
        listed = job.get("custom_environment_variables")
        if isinstance(listed, list):
            entries = cast(list[Json], listed)
            out[job["id"]] = {
                entry["name"]: str(entry.get("display_value") or "")
                for entry in entries
                if entry.get("type", "job") == "job" and entry.get("state", 1) == 1
            }
        else:
            silent.append(job)
    asked = await asyncio.gather(*(client.job_variables(job["project_id"], job["id"]) for job in silent))
    for job, variables in zip(silent, asked, strict=True):
        out[job["id"]] = {name: str(entry.get("value") or "") for name, entry in variables.items()}
    return out


def plan(
    account_id: int, config: Config, scope: Scope, reading: Reading, now: datetime, options: Options | None = None
) -> ChangeSet:
    """Return the changes that bring dbt Cloud to what the files declare.

    Raises:
        ConfigError: a job has no project or environment, or follows a job that does not exist.
    """
    options = options or Options()
    observed = _by_key(scope, reading, config.jobs)
    known = {key: jobs[0]["id"] for key, jobs in observed.items()}
    changes: list[JobChange] = []
    for job in (job for step in in_order(config.jobs) for job in step):
        there, *doubled = observed.pop(job.key, None) or [None]
        project_id, environment_id = places(job, config)
        name = scope.name_of(job)
        base = JobChange(
            name=name,
            action=CREATE,
            key=job.key,
            project_id=project_id,
            environment_id=environment_id,
            definition=job,
        )
        if there is None:
            changes.append(_created(base, scope, reading, options))
            continue
        base = replace(base, job_id=there["id"], seen=version(there))
        upstream = upstream_id(job, config, known, reading.jobs)
        document = wanted_object(job, scope, account_id, base, now, upstream)
        changes.append(_kept(base, document, there, reading, options, now))
        changes += [_deleted(it, job.key, "a second job of the same name", options) for it in doubled if it]
    for key, jobs in observed.items():
        changes += [_deleted(job, key, "no longer in the files", options) for job in jobs]
    return ChangeSet(account_id=account_id, scope=scope.title, changes=tuple(changes))


def wanted_object(
    job: JobDefinition, scope: Scope, account_id: int, change: JobChange, now: datetime, upstream_id: int | None
) -> Json:
    """Return a job as it should be, stamp included.

    Args:
        upstream_id: of the job whose end starts this one; None where there is none, or it is unknown yet.
    """
    document = job_object(job, change.name, account_id, change.project_id, change.environment_id, now)
    if job.self_deferring:
        document["deferring_job_definition_id"] = change.job_id
    if upstream_id is not None:
        document["job_completion_trigger_condition"] = completion_trigger(job, upstream_id, change.project_id)
    return scope.stamp(job, {**document, "id": change.job_id} if job.self_deferring else document, now)


def places(job: JobDefinition, config: Config) -> tuple[int, int]:
    """Return the project and environment of a job.

    Raises:
        ConfigError: neither the job nor the settings name one.
    """
    project, environment = job.project_id or config.project_id, job.environment_id or config.environment_id
    if project is None or environment is None:
        raise ConfigError(
            f"The job {job.key!r} has no {'project' if project is None else 'environment'}: set PROJECT_ID and "
            "ENVIRONMENT_ID, or project_id and environment_id in the file."
        )
    return project, environment


def upstream_id(job: JobDefinition, config: Config, known: Mapping[str, int], others: Sequence[Json]) -> int | None:
    """Return the id of the job that starts this one; None where it starts by itself or is still to be created.

    Args:
        known: ids of jobs of the same files, by key.

    Raises:
        ConfigError: there is no such job.
    """
    if job.run_after is None:
        return None
    wanted = job.run_after.job
    key = next((it.key for it in config.jobs if wanted in (it.key, it.name)), None)
    if key is not None:
        return known.get(key)
    if wanted.isdigit():
        return int(wanted)
    named = [it["id"] for it in others if it.get("name") == wanted]
    if len(named) == 1:
        return named[0]
    raise ConfigError(
        f"The job {job.key!r} has to run after {wanted!r}, of which there are {len(named)}: neither in the files nor "
        "by that name in dbt Cloud. Write its name in the file, its full name in dbt Cloud, or its id."
    )


def _by_key(scope: Scope, reading: Reading, jobs: Sequence[JobDefinition]) -> dict[str, list[Json]]:
    """Return our jobs by key, the oldest first; a linked job stands before all."""
    linked = {job.linked_id: job.key for job in jobs if job.linked_id is not None}
    out: dict[str, list[Json]] = {}
    for job in sorted(reading.jobs, key=lambda it: (it["id"] not in linked, it["id"])):
        key = linked.get(job["id"]) or scope.key_of(job)
        if key is not None:
            out.setdefault(key, []).append(job)
    for job_id, key in linked.items():
        if all(job["id"] != job_id for job in reading.jobs):
            raise ConfigError(f"The job {key!r} is linked to {job_id}, which is not in dbt Cloud.")
    return out


def _created(base: JobChange, scope: Scope, reading: Reading, options: Options) -> JobChange:
    job = base.definition
    assert job is not None
    variables = dict.fromkeys(job.environment_variables, "set")
    same = [it for it in reading.jobs if it.get("name") == base.name and it["project_id"] == base.project_id]
    strangers = [it for it in same if scope.key_of(it) is None]
    if not strangers:
        return replace(base, variables=variables)
    stranger = strangers[0]
    taken = replace(base, job_id=stranger["id"], seen=version(stranger), variables=variables)
    if options.adopt:
        return replace(taken, action=UPDATE, reason="taken over: it was not deployed by this tool")
    reason = "a job of this name was not deployed by this tool, or was copied by hand; --adopt takes it over"
    return replace(taken, action=BLOCKED, reason=reason)


def _kept(base: JobChange, document: Json, there: Json, reading: Reading, options: Options, now: datetime) -> JobChange:
    job = base.definition
    assert job is not None
    wanted = compared({**document, "id": there["id"]})
    fields = differences(wanted, compared(there))
    if job.run_after is not None and wanted["run_after"] is None:
        fields["run_after"] = (compared(there)["run_after"], job.run_after.job)
    variables = _variable_changes(job, reading.variables.get(there["id"], {}), options)
    found = tuple(FieldChange(path, old, new) for path, (old, new) in fields.items())
    change = replace(base, action=UPDATE, fields=found, variables=variables)
    if there["project_id"] != base.project_id:
        return replace(change, action=BLOCKED, reason="a job can't move to another project: delete it first")
    if not fields and not variables:
        stamp = stamp_of(there)
        is_due = stamp is not None and now - stamp.deployed_at >= REFRESH_AFTER
        return replace(change, action=REFRESH if is_due else UNCHANGED)
    if fields and (by_hand := changed_by_hand(there)):
        if not options.force:
            return replace(change, action=BLOCKED, reason=f"{by_hand}; --force overwrites it")
        return replace(change, reason=f"{by_hand}, overwritten")
    return change


def changed_by_hand(job: Mapping[str, Any]) -> str | None:
    """Return a note if a job was changed by hand since its deployment; None where it was not or has no stamp."""
    stamp = stamp_of(job)
    if stamp is None or stamp.fingerprint == fingerprint(job):
        return None
    return f"changed by hand since {stamp.deployed_at:%Y-%m-%d %H:%M} UTC"


def _variable_changes(job: JobDefinition, there: Mapping[str, str], options: Options) -> dict[str, str]:
    changes: dict[str, str] = {}
    for name, value in job.environment_variables.items():
        is_secret = name.startswith(SECRET_PREFIX)
        if name not in there or (options.write_secrets if is_secret else there[name] != value):
            changes[name] = "set"
    return changes | dict.fromkeys(sorted(there.keys() - job.environment_variables.keys()), "delete")


def _deleted(job: Json, key: str, reason: str, options: Options) -> JobChange:
    change = JobChange(
        name=job["name"],
        action=DELETE,
        reason=reason,
        key=key,
        project_id=job["project_id"],
        environment_id=job["environment_id"],
        job_id=job["id"],
    )
    change = replace(change, seen=version(job))
    if (by_hand := changed_by_hand(job)) and not options.force:
        return replace(change, action=BLOCKED, reason=f"{reason}, but {by_hand}; --force deletes it")
    return change
