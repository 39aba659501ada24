"""A job as dbt Cloud's API has it: built from a definition, compared field by field, and fingerprinted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import orjson

from deployments.dbt_cloud.model.definition import STATUSES, JobDefinition
from deployments.dbt_cloud.model.names import without_stamp
from deployments.dbt_cloud.model.time_zones import utc_cron

Json = dict[str, Any]

ACTIVE = 1
# The placeholder for the job's own id before it has one.
SELF = "self"
# dbt Cloud requires a schedule even for jobs without one.
_NO_SCHEDULE = {"cron": "0 0 1 1 *", "date": {"type": "custom_cron", "cron": "0 0 1 1 *"}}
_EVERY_HOUR = {"type": "every_hour", "interval": 1}
# Types that dbt Cloud derives from the triggers, and may change.
_CLOCK_TYPES = ("scheduled", "other")
# Fields that may be sent; the rest of what dbt Cloud returns is its own.
WRITABLE = (
    "account_id",
    "project_id",
    "environment_id",
    "name",
    "description",
    "execution",
    "settings",
    "triggers",
    "state",
    "generate_docs",
    "run_generate_sources",
    "run_compare_changes",
    "compare_changes_flags",
    "run_lint",
    "errors_on_lint_failure",
    "lifecycle_webhooks",
    "execute_steps",
    "schedule",
    "dbt_version",
    "deferring_environment_id",
    "deferring_job_definition_id",
    "job_type",
    "cost_optimization_features",
    "triggers_on_draft_pr",
    "job_completion_trigger_condition",
)


def schedule_of(job: JobDefinition, now: datetime) -> Json:
    """Return the schedule object of a job; `now` decides the offset of a time zone.

    Raises:
        ConfigError: the local schedule is not a single cron line in UTC.
    """
    if not job.is_scheduled:
        return {**_NO_SCHEDULE, "time": dict(_EVERY_HOUR)}
    if (local := job.local_cron) is not None:
        return _cron_schedule("custom_cron", utc_cron(local, job.schedule_tz or "UTC", now))
    if job.schedule_type == "custom_cron":
        return _cron_schedule("custom_cron", job.schedule_cron or "")
    days = job.schedule_days
    if job.schedule_type == "interval_cron":
        listed = ",".join(str(day) for day in days or range(7))
        schedule = _cron_schedule("interval_cron", f"4 */{job.schedule_interval} * * {listed}")
        return {**schedule, "time": {"type": "every_hour", "interval": job.schedule_interval}}
    date: Json = {"type": "days_of_week", "days": days} if days else {"type": "every_day"}
    if job.schedule_hours:
        return {"date": date, "time": {"type": "at_exact_hours", "hours": job.schedule_hours}}
    return {"date": date, "time": {"type": "every_hour", "interval": job.schedule_interval or 1}}


def _cron_schedule(kind: str, cron: str) -> Json:
    return {"cron": cron, "date": {"type": kind, "cron": cron}, "time": dict(_EVERY_HOUR)}


def job_object(
    job: JobDefinition, name: str, account_id: int, project_id: int, environment_id: int, now: datetime
) -> Json:
    """Return the job as it is sent to dbt Cloud; the description is still without a stamp.

    What needs the id of a job that may not exist yet is left for later: self-deferral and completion triggers.
    """
    document: Json = {
        "account_id": account_id,
        "project_id": project_id,
        "environment_id": environment_id,
        "name": name,
        "description": job.description,
        "execution": {"timeout_seconds": job.timeout_seconds},
        "settings": {"threads": job.threads, "target_name": job.target_name},
        "triggers": {
            "github_webhook": job.github_webhook,
            "git_provider_webhook": job.git_provider_webhook,
            "schedule": job.is_scheduled,
            "on_merge": job.on_merge,
        },
        "state": ACTIVE,
        "generate_docs": job.generate_docs,
        "run_generate_sources": job.run_generate_sources,
        "run_compare_changes": job.run_compare_changes,
        "compare_changes_flags": job.compare_changes_flags,
        "run_lint": job.run_lint,
        "errors_on_lint_failure": job.errors_on_lint_failure,
        "lifecycle_webhooks": False,
        "execute_steps": list(job.execute_steps),
        "schedule": schedule_of(job, now),
        "dbt_version": job.dbt_version,
        "deferring_environment_id": job.deferring_environment_id,
        "deferring_job_definition_id": job.deferring_job_id,
        "triggers_on_draft_pr": job.triggers_on_draft_pr,
        "job_completion_trigger_condition": None,
    }
    if job.job_type:
        document["job_type"] = job.job_type
    if job.cost_optimization_features:
        document["cost_optimization_features"] = list(job.cost_optimization_features)
    return document


def completion_trigger(job: JobDefinition, upstream_id: int, project_id: int) -> Json:
    """Return the object of a completion trigger."""
    assert job.run_after is not None
    statuses = sorted({STATUSES[word] for word in job.run_after.statuses})
    condition = {"job_id": upstream_id, "project_id": job.run_after.project_id or project_id, "statuses": statuses}
    return {"condition": condition}


def sendable(observed: Mapping[str, Any], wanted: Mapping[str, Any]) -> Json:
    """Return a whole job to send: what dbt Cloud has, with our fields in place of its own."""
    kept = {name: observed[name] for name in WRITABLE if name in observed}
    merged = {**kept, **{name: wanted[name] for name in WRITABLE if name in wanted}}
    merged["lifecycle_webhooks"] = observed.get("lifecycle_webhooks", merged.get("lifecycle_webhooks", False))
    # The published form has no null for these: left out means the same.
    return {name: value for name, value in merged.items() if value is not None or name in _NULLABLE}


# To remove one of these, it has to be sent as null.
_NULLABLE = (
    "dbt_version",
    "deferring_environment_id",
    "deferring_job_definition_id",
    "job_completion_trigger_condition",
)


def compared(job: Mapping[str, Any]) -> Json:
    """Return the fields that a definition decides, in a normal form.

    The same for a job that is about to be sent and for one that was read back.
    """
    triggers = cast(Json, job.get("triggers") or {})
    settings = cast(Json, job.get("settings") or {})
    deferring_job = job.get("deferring_job_definition_id")
    is_compare = bool(job.get("run_compare_changes"))
    out: Json = {
        "name": job.get("name"),
        "project_id": job.get("project_id"),
        "environment_id": job.get("environment_id"),
        "description": without_stamp(str(job.get("description") or "")),
        "execute_steps": list(job.get("execute_steps") or []),
        "dbt_version": job.get("dbt_version") or None,
        "threads": settings.get("threads", 1),
        "target_name": settings.get("target_name", "default"),
        "timeout_seconds": cast(Json, job.get("execution") or {}).get("timeout_seconds", 0),
        "triggers": {
            name: bool(triggers.get(name))
            for name in ("github_webhook", "git_provider_webhook", "schedule", "on_merge")
        },
        "schedule": _compared_schedule(job) if triggers.get("schedule") else None,
        "generate_docs": bool(job.get("generate_docs")),
        "run_generate_sources": bool(job.get("run_generate_sources")),
        "run_lint": bool(job.get("run_lint")),
        "errors_on_lint_failure": job.get("errors_on_lint_failure") is not False,
        "run_compare_changes": is_compare,
        "compare_changes_flags": job.get("compare_changes_flags") if is_compare else None,
        "triggers_on_draft_pr": bool(job.get("triggers_on_draft_pr")),
        "deferring_environment_id": job.get("deferring_environment_id") or None,
        "deferring_job": SELF if deferring_job and deferring_job == job.get("id") else deferring_job or None,
        "run_after": _compared_trigger(job.get("job_completion_trigger_condition")),
        "cost_optimization_features": sorted(job.get("cost_optimization_features") or []),
    }
    job_type = job.get("job_type")
    out["job_type"] = None if job_type in (None, *_CLOCK_TYPES) else job_type
    return out


def _compared_schedule(job: Mapping[str, Any]) -> Json:
    schedule = cast(Json, job.get("schedule") or {})
    date, time = cast(Json, schedule.get("date") or {}), cast(Json, schedule.get("time") or {})
    kind = date.get("type")
    if kind == "custom_cron":
        return {"cron": date.get("cron") or schedule.get("cron")}
    if kind == "interval_cron":
        # The cron line has minute and days; dbt Cloud chooses the minute.
        return {"interval": (date.get("cron") or schedule.get("cron") or "").split(" ", 1)[-1]}
    days = sorted(date.get("days") or []) if kind == "days_of_week" else None
    if time.get("type") == "at_exact_hours":
        return {"days": days, "hours": sorted(time.get("hours") or [])}
    return {"days": days, "every_hours": time.get("interval", 1)}


def _compared_trigger(trigger: object) -> Json | None:
    condition = cast(Json, (cast(Json, trigger) if isinstance(trigger, dict) else {}).get("condition") or {})
    if not condition:
        return None
    return {**condition, "statuses": sorted(condition.get("statuses") or [])}


def differences(wanted: Json, observed: Json) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two compared jobs differ, each with its current and its wanted value."""
    found = {name: (observed.get(name), value) for name, value in wanted.items() if observed.get(name) != value}
    # A field that dbt Cloud computes is no difference where the file does not set it.
    if wanted.get("job_type") is None:
        found.pop("job_type", None)
    return found


def fingerprint(job: Mapping[str, Any]) -> str:
    """Return a short digest of the fields that a definition decides; the same when the job is read back."""
    # dbt Cloud computes the type, and may change it.
    document = {name: value for name, value in compared(job).items() if name != "job_type"}
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]


def version(job: Mapping[str, Any]) -> str:
    """Return a digest that differs once a job was changed or deployed again."""
    description = hashlib.sha256(str(job.get("description") or "").encode()).hexdigest()[:6]
    return f"{fingerprint(job)}-{description}"
