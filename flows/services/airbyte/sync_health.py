"""The health of a connection's syncs, and the incidents of unhealthy ones: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from flows.alerts.incident import Incident, Severity
from flows.services.airbyte.client import AirbyteConnection, Job
from infrastructure.plain_text import plural_of

# well      the newest sync succeeded, or the next one is under way in time
# failed    the newest one failed
# cancelled the newest one was stopped by a user: Airbyte sends no notification
# silent    none has succeeded for too long, and none has failed either: nothing runs, or something runs for ever
# off       Airbyte does not run it any more, by hand or after too many failures
# missing   Airbyte has no such connection
State = Literal["well", "failed", "cancelled", "silent", "off", "missing"]

_SEVERITIES: dict[State, Severity] = {
    "failed": "error",
    "cancelled": "warning",
    "silent": "error",
    "off": "error",
    "missing": "error",
}


@dataclass(frozen=True)
class SyncHealth:
    """The health of one connection.

    Attributes:
        sources: the dbt sources that it loads.
        newest: its newest job that brings data; None where there is none.
        succeeded_at: when one last succeeded; None where that is not known, or too long ago.
        failures: how many have failed in a row.
        silent_after: how long its sources may go without new data.
        reason: why the newest one failed, in Airbyte's words.
    """

    connection_id: str
    sources: tuple[str, ...]
    state: State
    newest: Job | None = None
    succeeded_at: datetime | None = None
    failures: int = 0
    silent_after: timedelta = timedelta(hours=24)
    name: str = ""
    reason: str | None = None


def health_of(
    connection_id: str,
    sources: Sequence[str],
    connection: AirbyteConnection | None,
    jobs: Sequence[Job],
    now: datetime,
    silent_after: timedelta,
) -> SyncHealth:
    """Judge a connection by its jobs, oldest first.

    Args:
        connection: None where Airbyte has no such connection.
    """
    newest = jobs[-1] if jobs else None
    ended = [job for job in jobs if job.has_ended]
    succeeded = [job.last_updated_at for job in ended if job.status == "succeeded" and job.last_updated_at]
    succeeded_at = max(succeeded, default=None)
    failures = 0
    for job in reversed(ended):
        if job.status != "failed":
            break
        failures += 1
    state: State = "well"
    if connection is None:
        state = "missing"
    elif newest and newest.status == "failed":
        state = "failed"
    elif newest and newest.status == "cancelled":
        state = "cancelled"
    elif connection.status != "active":
        state = "off"
    elif succeeded_at is None or now - succeeded_at > silent_after:
        state = "silent"
    name = connection.name if connection else ""
    return SyncHealth(connection_id, tuple(sources), state, newest, succeeded_at, failures, silent_after, name)


def incident_key(connection_id: str) -> str:
    """Return the key of a connection's incident: one, whatever is wrong and whichever check finds it."""
    return f"airbyte sync/{connection_id}"


def sync_incident(
    connection_id: str, sources: Sequence[str], job: Job, reason: str | None, target: str, name: str = ""
) -> Incident:
    """Return the incident of a sync that failed or was cancelled."""
    state: State = "cancelled" if job.status == "cancelled" else "failed"
    return health_incident(SyncHealth(connection_id, tuple(sources), state, job, name=name, reason=reason), target)


def health_incident(health: SyncHealth, target: str) -> Incident:
    """Return the incident of an unhealthy connection."""
    who = health.name or ", ".join(health.sources) or health.connection_id
    job = health.newest
    number = f" {job.job_id}" if job else ""
    match health.state:
        case "cancelled":
            title = f"Airbyte's sync{number} of {who} was cancelled"
            text = "What it had loaded until then may be in the raw tables, but not in the marts."
        case "silent":
            title = f"No sync of {who} has succeeded for {_hours(health.silent_after)}"
            text = f"{_last_success(health)} {_now_running(job)}"
        case "off":
            title = f"Airbyte no longer syncs {who}"
            text = "The connection is disabled; Airbyte does that itself after too many failures. Enable it."
        case "missing":
            title = f"Airbyte has no connection {health.connection_id}"
            text = f"The meta of source {', '.join(health.sources)} names it. Was it deleted, or is the id a mistake?"
        case _:
            title = f"Airbyte's sync{number} of {who} failed"
            again = f" It is failure number {health.failures} in a row." if health.failures > 1 else ""
            text = f"{health.reason or 'Airbyte gives no reason.'}{again}"
    loaded = f" It loads source {', '.join(health.sources)}." if health.sources and health.state != "missing" else ""
    return Incident(
        incident_key(health.connection_id),
        _SEVERITIES.get(health.state, "error"),
        title,
        text + loaded,
        target=target,
        tags=("airbyte",),
    )


def _hours(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours:g} {'hour' if hours == 1 else plural_of('hour')}"


def _last_success(health: SyncHealth) -> str:
    if health.succeeded_at is None:
        return "When the last one did is unknown, or long ago."
    return f"The last one did at {health.succeeded_at:%Y-%m-%d %H:%M} UTC."


def _now_running(job: Job | None) -> str:
    if job is None or job.has_ended:
        return "None is running: look at the connection's schedule."
    return f"Job {job.job_id} is {job.status} since {job.start_time:%Y-%m-%d %H:%M} UTC."
