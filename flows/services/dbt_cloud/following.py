"""Start a run of a dbt Cloud job exactly once, and follow it to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows.services.dbt_cloud.client import CANCELLED, ERROR, SUCCESS, CloudClient, Json
from flows.services.dbt_cloud.transport import AnswerLost, RequestRefused, look_for
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.plain_text import count_of

_log = logging.getLogger(__name__)

SENDS = 4
# How often a run is looked for, after a lost answer to its trigger, before the trigger is sent again.
LOOKS = 3
LAST_POLL_SECONDS = 15.0
POLL_GROWTH = 1.5
# A run goes on while dbt Cloud's API does not answer; polling ends after so many failures in a row.
UNANSWERED_POLLS = 20

STATUS_WORDS = {1: "queued", 2: "starting", 3: "running", SUCCESS: "succeeded", ERROR: "failed", CANCELLED: "cancelled"}


def marker(key: str) -> str:
    """Return the text in a run's cause by which it is found again: dbt Cloud has no other place for it."""
    return f"[tributary {key}]"


@dataclass
class Followed:
    """A run and its retries, filled in while it is followed.

    Attributes:
        runs: oldest first; the last one counts.
        was_adopted: whether the first run existed already.
    """

    job: Json
    runs: list[Json] = field(default_factory=list[Json])
    was_adopted: bool = False

    @property
    def last(self) -> Json:
        """Return the run that counts."""
        return self.runs[-1]

    @property
    def unfinished(self) -> int | None:
        """Return the id of a run that may still be in progress."""
        return int(self.last["id"]) if self.runs and not is_finished(self.last) else None


def is_finished(run: Mapping[str, Any]) -> bool:
    """Return whether a run has ended, well or not."""
    return bool(run.get("is_complete")) or run.get("status") in (SUCCESS, ERROR, CANCELLED)


async def find_job(client: CloudClient, job: str | int, project_id: int | None = None) -> Json:
    """Return a job by id or by its full name.

    Raises:
        ConfigError: there is none, or more than one of this name.
    """
    if isinstance(job, int) or job.isdigit():
        found = await client.job(int(job))
        if found is None:
            raise ConfigError(f"dbt Cloud has no job {job} in account {client.settings.account_id}.")
        return found
    near = await client.jobs(project_ids=[project_id] if project_id is not None else [], name_contains=job)
    named = [it for it in near if it["name"] == job]
    if len(named) == 1:
        return named[0]
    if not named:
        names = ", ".join(repr(it["name"]) for it in near[:5])
        raise ConfigError(f"dbt Cloud has no job {job!r}.{f' There is {names}.' if near else ''}")
    ids = ", ".join(f"{it['id']} in project {it['project_id']}" for it in named[:5])
    raise ConfigError(f"dbt Cloud has {count_of(len(named), 'job')} {job!r}: {ids}. Give the id.")


async def start_or_adopt(client: CloudClient, followed: Followed, key: str, request: Mapping[str, Any]) -> None:
    """Find the run with this key and its retries; start one when there is none.

    Raises:
        UpstreamUnavailable: it is unknown whether it was started.
    """
    job_id = int(followed.job["id"])
    if chain := await _chain(client, job_id, key):
        followed.runs, followed.was_adopted = chain, True
        return
    body = {**request, "cause": f"{request.get('cause') or 'Started by Tributary'} {marker(key)}"}
    lost = ""
    for _ in range(SENDS):
        try:
            followed.runs = [await client.trigger(job_id, body)]
            return
        except AnswerLost as exc:
            lost = str(exc)
        if chain := await look_for(lambda: _chain(client, job_id, key), LOOKS, client.settings.backoff_seconds):
            followed.runs = chain
            return
    raise UpstreamUnavailable(f"The job {followed.job['name']!r} could not be started: {lost}")


async def follow(
    client: CloudClient, followed: Followed, retries: int = 0, say: Callable[[str], None] | None = None
) -> Json:
    """Wait for the end of a run; retry a failed one from its point of failure, up to `retries` times.

    Returns:
        The last run, with its steps, whatever its status.
    """
    while True:
        run = followed.runs[-1] = await _until_finished(client, int(followed.last["id"]), say)
        is_retryable = run.get("status") == ERROR and run.get("can_retry") and len(followed.runs) <= retries
        if not is_retryable:
            return run
        if say:
            say(f"Run {run['id']} failed; dbt Cloud retries it from the point of failure.")
        try:
            followed.runs.append(await _retry(client, followed))
        except RequestRefused as exc:
            # dbt Cloud decides what can be retried; it refuses, for example, when there is a newer run.
            if say:
                say(f"Run {run['id']} is not retried: {exc}")
            return run


async def _retry(client: CloudClient, followed: Followed) -> Json:
    failed = int(followed.last["id"])

    async def find_retry() -> Json | None:
        runs = await client.runs(int(followed.job["id"]))
        return next((run for run in runs if run.get("retrying_run_id") == failed), None)

    try:
        return await client.retry(failed)
    except AnswerLost:
        # dbt Cloud retries only the latest run of a job, so that a second request for it is refused.
        found = await look_for(find_retry, LOOKS, client.settings.backoff_seconds)
        return found or await client.retry(failed)


# Not tenacity: the pause grows while nothing changes, and begins again at each new status.
async def _until_finished(client: CloudClient, run_id: int, say: Callable[[str], None] | None) -> Json:
    wait, unanswered, status = client.settings.poll_seconds, 0, 0
    while True:
        try:
            run = await client.run(run_id)
            unanswered = 0
        except UpstreamUnavailable as exc:
            unanswered += 1
            if unanswered >= UNANSWERED_POLLS:
                raise
            _log.warning("The status of run %s can't be read: %s", run_id, exc)
        else:
            if run.get("status") != status:
                status, wait = int(run.get("status") or 0), client.settings.poll_seconds
                if say:
                    say(f"Run {run_id} is {STATUS_WORDS.get(status, status)}.")
            if is_finished(run):
                return run
        await asyncio.sleep(wait)
        wait = min(LAST_POLL_SECONDS, wait * POLL_GROWTH)


async def _chain(client: CloudClient, job_id: int, key: str) -> list[Json] | None:
    """Return the run with a key in its cause and the runs that retried it, oldest first; None without such a run."""
    runs: Sequence[Json] = sorted(await client.runs(job_id), key=lambda run: run["id"])
    wanted, chain = marker(key), list[Json]()
    for run in runs:
        is_first = wanted in str((run.get("trigger") or {}).get("cause") or "")
        if is_first or run.get("retrying_run_id") in {it["id"] for it in chain}:
            chain.append(run)
    return chain or None
