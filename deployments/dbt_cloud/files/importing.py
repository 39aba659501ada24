"""Turn jobs in dbt Cloud into definitions for a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError

from deployments.dbt_cloud.model.definition import SECRET_PREFIX, STATUSES, JobDefinition
from deployments.dbt_cloud.model.job_object import Json
from deployments.dbt_cloud.model.names import Owner, split_identifier, stamp_of, without_stamp
from infrastructure.errors import ConfigError

_WORDS = {number: word for word, number in reversed(STATUSES.items())}


def definition_of(job: Mapping[str, Any], variables: Mapping[str, str], *, cron_only: bool, linked: bool) -> Json:
    """Return the fields of a job's definition.

    Args:
        cron_only: for YAML of dbt-jobs-as-code, which has no other schedule.
        linked: with the job's id, so that a deployment takes it over.
    """
    stamp = stamp_of(job)
    plain, identifier = split_identifier(str(job["name"]))
    settings, triggers = cast(Json, job.get("settings") or {}), cast(Json, job.get("triggers") or {})
    out: Json = {
        "name": stamp.job if stamp is not None else plain,
        "description": without_stamp(str(job.get("description") or "")),
        "project_id": job["project_id"],
        "environment_id": job["environment_id"],
        "execute_steps": job.get("execute_steps") or [],
        "threads": settings.get("threads", 1),
        "target_name": settings.get("target_name", "default"),
        "timeout_seconds": cast(Json, job.get("execution") or {}).get("timeout_seconds", 0),
        **{name: bool(triggers.get(name)) for name in ("github_webhook", "git_provider_webhook", "on_merge")},
        **_schedule(job, triggers, cron_only),
        **_local(stamp.schedule if stamp is not None else None),
    }
    for name in [
        "generate_docs",
        "run_generate_sources",
        "run_lint",
        "errors_on_lint_failure",
        "run_compare_changes",
        "triggers_on_draft_pr",
        "dbt_version",
        "deferring_environment_id",
        "cost_optimization_features",
    ]:
        if job.get(name) is not None:
            out[name] = job[name]
    if job.get("run_compare_changes"):
        out["compare_changes_flags"] = job.get("compare_changes_flags")
    if (deferring := job.get("deferring_job_definition_id")) is not None:
        out |= {"self_deferring": True} if deferring == job["id"] else {"deferring_job_id": deferring}
    if job.get("job_type") not in (None, "scheduled", "other"):
        out["job_type"] = job["job_type"]
    if condition := cast(Json, job.get("job_completion_trigger_condition") or {}).get("condition"):
        out["run_after"] = {
            "job": str(condition["job_id"]),
            "project_id": condition.get("project_id"),
            "statuses": [_WORDS.get(number, number) for number in condition.get("statuses") or [10]],
        }
    # A secret reads back as asterisks: its value has to come from the environment.
    out["environment_variables"] = {
        name: f"env:{name}" if name.startswith(SECRET_PREFIX) else value for name, value in variables.items()
    }
    if cron_only:
        out["identifier"] = identifier or _identifier(str(out["name"]), job["id"])
    if linked:
        out["linked_id"] = job["id"]
    return out


def import_jobs(
    jobs: Sequence[Json], variables: Mapping[int, Mapping[str, str]], *, cron_only: bool = False, linked: bool = False
) -> tuple[tuple[JobDefinition, ...], list[str]]:
    """Return definitions, and a sentence for each job that can't have one."""
    found: list[JobDefinition] = []
    left: list[str] = []
    names = {job["id"]: job for job in jobs}
    for job in jobs:
        fields = definition_of(job, variables.get(job["id"], {}), cron_only=cron_only, linked=linked)
        after = fields.get("run_after")
        if after and not cron_only and int(after["job"]) in names:
            # By name, which is the same in every environment.
            upstream = names[int(after["job"])]
            stamp = stamp_of(upstream)
            after["job"] = stamp.job if stamp is not None else split_identifier(str(upstream["name"]))[0]
        try:
            found.append(JobDefinition.model_validate(fields))
        except ValidationError as exc:
            left.append(f"{job['name']} ({job['id']}): {exc.errors()[0]['msg'].removeprefix('Value error, ')}")
    return _apart(found), left


def only(jobs: Sequence[Json], owner: Owner | None, filters: Sequence[str]) -> list[Json]:
    """Return the jobs of an owner, or of all, whose names match one of the patterns.

    Raises:
        ConfigError: a pattern is not a regular expression.
    """
    try:
        patterns = [re.compile(pattern, re.IGNORECASE) for pattern in filters]
    except re.error as exc:
        raise ConfigError(f"{exc.pattern!r} is not a regular expression: {exc}.") from exc
    out: list[Json] = []
    for job in jobs:
        stamp = stamp_of(job)
        if owner is not None and (stamp is None or not stamp.is_of(owner)):
            continue
        if patterns and not any(pattern.search(str(job["name"])) for pattern in patterns):
            continue
        out.append(job)
    return out


def _schedule(job: Mapping[str, Any], triggers: Json, cron_only: bool) -> Json:
    if not triggers.get("schedule"):
        return {"schedule_type": "manual"}
    schedule = cast(Json, job.get("schedule") or {})
    date, time = cast(Json, schedule.get("date") or {}), cast(Json, schedule.get("time") or {})
    kind = date.get("type")
    if kind == "custom_cron" or cron_only:
        return {"schedule_type": "custom_cron", "schedule_cron": date.get("cron") or schedule.get("cron")}
    if kind == "interval_cron":
        days = str(date.get("cron") or schedule.get("cron") or "").split(" ")[-1]
        chosen = {"schedule_days": [int(day) for day in days.split(",")]} if days not in ("", "*") else {}
        return {"schedule_type": "interval_cron", "schedule_interval": time.get("interval", 1), **chosen}
    out: Json = {"schedule_type": kind or "every_day"}
    if kind == "days_of_week":
        out["schedule_days"] = date.get("days") or []
    if time.get("type") == "at_exact_hours":
        out["schedule_hours"] = time.get("hours") or []
    else:
        out["schedule_interval"] = time.get("interval", 1)
    return out


def _local(schedule: str | None) -> Json:
    if schedule is None:
        return {}
    cron, _, zone = schedule.rpartition("@")
    return {
        "schedule_type": "custom_cron",
        "schedule_cron": cron,
        "schedule_tz": zone,
        "schedule_hours": None,
        "schedule_days": None,
        "schedule_interval": None,
    }


def _identifier(name: str, job_id: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or f"job-{job_id}"


def _apart(jobs: Sequence[JobDefinition]) -> tuple[JobDefinition, ...]:
    """Add a number to the names of jobs that share one, since a file has each name once."""
    seen: dict[str, int] = {}
    out: list[JobDefinition] = []
    for job in jobs:
        folded = job.key.casefold()
        count = seen[folded] = seen.get(folded, 0) + 1
        if count > 1:
            field = "identifier" if job.identifier else "name"
            job = job.model_copy(update={field: f"{job.key}-{count}"})
        out.append(job)
    return tuple(out)
