"""Run a dbt Cloud job as a flow: exactly once, with the same report and history as any other run."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from prefect import flow
from prefect.exceptions import TerminationSignal

from flows.alerts import Incident, close_incident, open_incident
from flows.alerts.hooks import with_alerts
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import current_flow_run, is_on_its_own
from flows.engine.context.state import state_of_job
from flows.engine.sinks.stopping import is_being_cancelled
from flows.history.record import record_run
from flows.report.artifacts import publish
from flows.services.dbt_cloud.client import SUCCESS, CloudClient, Json
from flows.services.dbt_cloud.following import STATUS_WORDS, Followed, find_job, follow, is_finished, start_or_adopt
from flows.services.dbt_cloud.run_results import fetch_artifacts, result_of_run
from flows.services.dbt_cloud.settings import TOKEN_NAMES, CloudSettings, settings_from
from infrastructure.errors import ConfigError, DbtRunFailed, RunTimedOut, TributaryError, preview

TOKEN_BLOCK = "dbt-cloud-token"
# Folders of state are per project and target; dbt Cloud's own names of projects are numbers.
PROJECT = "dbt-cloud"
# dbt Cloud does not say in which warehouse a job builds.
WAREHOUSE = "dbt Cloud"


@dataclass(frozen=True)
class CloudRun:
    """The result of a run in dbt Cloud.

    Attributes:
        run_ids: the run and its retries, oldest first.
        was_adopted: whether an existing run was found, running or done, instead of starting one.
    """

    job_id: int
    job_name: str
    run_ids: tuple[int, ...]
    was_adopted: bool
    link: str | None
    result: DbtResult


@with_alerts
@flow(flow_run_name="cloud-{job}", validate_parameters=True)
def run_cloud_job(  # noqa: PLR0913  (its form in Prefect's UI)
    job: str | int,
    cause: str | None = None,
    target: str = "cloud",
    retries_from_failure: int = 1,
    timeout_seconds: float | None = None,
    git_branch: str | None = None,
    steps: list[str] | None = None,
    project_id: int | None = None,
    run_key: str | None = None,
    account_id: int | None = None,
) -> CloudRun:
    """Run a dbt Cloud job and wait for its end.

    A flow run that is started again after a crash follows the run that it had started, which it finds by a key in the
    run's cause.

    Args:
        job: id, or full name.
        cause: shown in dbt Cloud as the reason.
        target: names the environment in alerts and in the history.
        retries_from_failure: how often to retry a failed run from its point of failure.
        timeout_seconds: cancel the run after so long.
        git_branch: in place of the environment's.
        steps: dbt commands in place of the job's.
        project_id: where several projects have a job of this name.
        run_key: identifies the run; the flow run's id when None.
        account_id: in place of DBTCLOUD_ACCOUNT_ID.

    Raises:
        DbtRunFailed: the run failed or was cancelled in dbt Cloud.
        RunTimedOut: it took longer than timeout_seconds and was cancelled.
        UpstreamUnavailable: dbt Cloud did not answer for too long. The run may continue; start the flow run again.
        ConfigError: the job or a setting is missing.
    """
    flow_run = current_flow_run()
    settings = cloud_settings(account_id)
    request = {"cause": cause, "git_branch": git_branch, "steps_override": steps}
    key = run_key or (str(flow_run.id) if flow_run else uuid4().hex)
    work = _Work(settings, {name: value for name, value in request.items() if value}, key, target)
    try:
        run, result = asyncio.run(work.run(job, project_id, retries_from_failure, timeout_seconds))
        return work.written_down(run, result)
    except (KeyboardInterrupt, TerminationSignal):
        if flow_run is None or is_on_its_own() or is_being_cancelled(flow_run.id):
            work.cancel()
        elif work.link:
            current_reporter().note(f"The run in dbt Cloud continues; start this again to follow it: {work.link}")
        raise
    except TributaryError as exc:
        work.tell(exc)
        raise


def cloud_settings(account_id: int | None = None) -> CloudSettings:
    """Return how to reach dbt Cloud: the token from its secret block or the environment, the rest from the latter.

    Raises:
        ConfigError: something is missing.
    """
    from infrastructure.server.client import connect

    token = None
    if not any(os.environ.get(name) for name in TOKEN_NAMES):
        with connect() as server:
            block = server.read_block("secret", TOKEN_BLOCK)
        token = str(block.data["value"]) if block else None
        if token is None:
            raise ConfigError(
                f"No token for dbt Cloud: the Prefect server has no block secret/{TOKEN_BLOCK}. "
                f"Create it, or set {TOKEN_NAMES[0]}."
            )
    return settings_from(os.environ, account_id=account_id, token=token)


class _Work:
    """One run that is being followed, and what is needed to cancel it when this process is stopped."""

    def __init__(self, settings: CloudSettings, request: dict[str, Any], key: str, target: str) -> None:
        self._settings, self._request, self._key, self._target = settings, request, key, target
        self._followed: Followed | None = None
        self._name = ""

    @property
    def link(self) -> str | None:
        """Return the run's page in dbt Cloud."""
        followed = self._followed
        return str(followed.last.get("href") or "") or None if followed is not None and followed.runs else None

    async def run(
        self, job: str | int, project_id: int | None, retries: int, timeout_seconds: float | None
    ) -> tuple[Json, DbtResult]:
        """Start or adopt the run, follow it, and fetch its results."""
        self._name = str(job)
        async with CloudClient(self._settings) as client:
            found = await find_job(client, job, project_id)
            self._name = found["name"]
            followed = self._followed = Followed(found)
            try:
                async with asyncio.timeout(timeout_seconds):
                    await start_or_adopt(client, followed, self._key, self._request)
                    self._say_which()
                    run = await follow(client, followed, retries, current_reporter().note)
            except TimeoutError as exc:
                await self._cancel(client)
                raise RunTimedOut(
                    f"The dbt Cloud job {self._name!r} took longer than {timeout_seconds:g} s and was cancelled"
                    f"{f': {self.link}' if self.link else ''}."
                ) from exc
            state = state_of_job(PROJECT, f"{self._target}-{found['id']}", os.environ)
            steps = [step for it in followed.runs for step in await fetch_artifacts(client, it, state.target_path)]
        return run, result_of_run(found, followed.runs, steps, state, self._target)

    def written_down(self, run: Json, result: DbtResult) -> CloudRun:
        """Add the run to the history and the report, and return it.

        Raises:
            DbtRunFailed: it did not succeed.
        """
        followed, error = self._followed, self._failure(run, result)
        assert followed is not None
        record_run(result, DbtCommand("build"), PROJECT, WAREHOUSE, error)
        publish(result)
        if error is not None:
            raise error
        close_incident(self._incident_key, self._target)
        ids = tuple(int(it["id"]) for it in followed.runs)
        return CloudRun(followed.job["id"], self._name, ids, followed.was_adopted, self.link, result)

    def cancel(self) -> None:
        """Cancel the run in dbt Cloud, from outside of its event loop."""

        async def cancel() -> None:
            async with CloudClient(self._settings) as client:
                await self._cancel(client)

        asyncio.run(cancel())

    def tell(self, error: TributaryError) -> None:
        """Open an incident for the failed run."""
        error.is_told = True
        open_incident(
            Incident(
                self._incident_key,
                "error",
                f"dbt Cloud job {self._name} failed",
                str(error),
                target=self._target,
                tags=("dbt-cloud",),
                link=self.link,
            )
        )

    @property
    def _incident_key(self) -> str:
        return f"dbt cloud/{self._name}"

    def _say_which(self) -> None:
        followed = self._followed
        assert followed is not None
        verb = "Taking up" if followed.was_adopted else "Started"
        current_reporter().stage(f"{verb} run {followed.last['id']} of {self._name}: {self.link or 'no link'}")

    async def _cancel(self, client: CloudClient) -> None:
        run_id = self._followed.unfinished if self._followed is not None else None
        if run_id is None:
            return
        run = await client.cancel(run_id)
        said = "is cancelled" if is_finished(run) else "is being cancelled"
        current_reporter().note(f"Run {run_id} in dbt Cloud {said}.")

    def _failure(self, run: Json, result: DbtResult) -> DbtRunFailed | None:
        if run.get("status") == SUCCESS:
            return None
        failed = result.of("failed")
        word = STATUS_WORDS.get(int(run.get("status") or 0), "ended")
        names = (
            f" for {len(failed)} of {len(result.nodes)} nodes: {preview([it.name for it in failed])}" if failed else ""
        )
        said = f" It says: {run['status_message']}" if run.get("status_message") else ""
        where = self.link or f"run {run.get('id')}"
        error = DbtRunFailed(
            f"The dbt Cloud job {self._name!r} {word}{names}.{said} See {where}",
            failed=[it.unique_id for it in failed],
            skipped=[it.unique_id for it in result.of("skipped")],
        )
        error.result = result
        return error
