"""No new data: check the loaders, the source database and stale sources, and, once confirmed, sync and build."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from prefect import flow

from flows.alerts.hooks import with_alerts
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import RunContext, flow_run_name, open_context
from flows.engine.target.file_lock import one_writer
from flows.pipelines import tasks
from flows.pipelines.selections import downstream
from flows.pipelines.transform import build_and_test
from flows.report.artifacts import attaching, key_of
from flows.runbook.pipeline_failure.source_database import Reachable, check_source_database
from flows.runbook.pipeline_failure.stale_sources import Stale, stale_sources
from flows.services.airbyte.client import AirbyteClient, Job, SyncPatience, find_airbyte
from flows.services.airbyte.sync_events import connections_of, freshness_hours_of
from flows.services.airbyte.sync_health import SyncHealth, health_incident, health_of, incident_key
from infrastructure.errors import ConfigError, DbtRunFailed, UpstreamUnavailable
from infrastructure.plain_text import count_of, markdown_code, markdown_text

if TYPE_CHECKING:
    pass

Restart = Literal["no", "ask", "yes"]
DEFAULT_FRESHNESS_HOURS = 24.0
# How long to wait for a confirmation in the Prefect UI.
_ASK_SECONDS = 3600


@dataclass(frozen=True)
class PipelineFailure:
    """What was found, and what was done about it.

    Attributes:
        airbyte_error: why Airbyte did not answer; None where it did, or where none is set up.
        database: None where no source database is named.
        restarted: the syncs that were started and succeeded, by connection.
        build: the build of what depends on their sources; None where nothing was synced.
    """

    target: str
    connections: tuple[SyncHealth, ...]
    airbyte_error: str | None
    database: Reachable | None
    stale: tuple[Stale, ...]
    restarted: Mapping[str, Job]
    build: DbtResult | None

    @property
    def badly(self) -> list[SyncHealth]:
        """Return the unhealthy connections."""
        return [health for health in self.connections if health.state != "well"]

    @property
    def is_well(self) -> bool:
        """Return whether everything is healthy again: unhealthy connections were synced, and no source is stale."""
        synced = {health.connection_id for health in self.badly} <= self.restarted.keys()
        reachable = self.database is None or self.database.error is None
        stale = [each for each in self.stale if not self.restarted]
        return synced and reachable and not self.airbyte_error and not stale


@with_alerts
@flow(flow_run_name=flow_run_name("pipeline-failure"), validate_parameters=True)
def pipeline_failure(
    target: str = "dev",
    project_dir: str | None = None,
    restart: Restart = "no",
    deadline_minutes: float = 60,
) -> PipelineFailure:
    """Find why no new data arrives, and what that affects; once confirmed, sync again and build what depends on it.

    Args:
        restart: whether to start the failed syncs: "ask" waits an hour for a confirmation in the Prefect UI.
        deadline_minutes: how long to wait for those syncs.

    Raises:
        UpstreamUnavailable: a sync that was started failed or did not end in time; nothing was built.
        DbtRunFailed: a model or a critical test failed.
    """
    with open_context(target, project_dir) as run:
        return _answered(run, restart, SyncPatience(deadline_seconds=deadline_minutes * 60))


def _answered(run: RunContext, restart: Restart, patience: SyncPatience) -> PipelineFailure:
    project, target, project_dir = run.project, run.target, str(run.project.folder)
    connections = connections_of(project.folder, os.environ)
    healths, error = _looked_at(connections, freshness_hours_of(project.folder), patience)
    database = check_source_database(os.environ)
    stale = _stale(run)
    found = PipelineFailure(target, tuple(healths), error, database, tuple(stale), {}, None)
    _tell(found)
    _publish(found)
    due = _due(found, connections)
    if not due or restart == "no" or (restart == "ask" and not _is_confirmed(found, due)):
        return found
    jobs = _synced(due, patience, target)
    sources = sorted({source for connection in jobs for source in connections[connection]})
    build, _ = build_and_test(downstream(sources), target, project_dir)
    return PipelineFailure(target, found.connections, error, database, found.stale, jobs, build)


def _looked_at(
    connections: Mapping[str, Sequence[str]], hours: Mapping[str, float], patience: SyncPatience
) -> tuple[list[SyncHealth], str | None]:
    """Return the health of each connection, or why it is unknown."""
    if not connections:
        return [], None
    now = datetime.now(UTC)
    found: list[SyncHealth] = []
    try:
        airbyte = find_airbyte(patience)
        if airbyte is None:
            current_reporter().note("No Airbyte is set up (AIRBYTE_API_URL), so its syncs were not checked.")
            return [], None
        with airbyte:
            for connection_id, sources in connections.items():
                limit = timedelta(hours=min(hours.get(source, DEFAULT_FRESHNESS_HOURS) for source in sources))
                found.append(_health(airbyte, connection_id, sources, now, limit))
    except (UpstreamUnavailable, ConfigError) as exc:
        # That it does not answer is a finding.
        return found, str(exc)
    return found, None


def _health(
    airbyte: AirbyteClient, connection_id: str, sources: Sequence[str], now: datetime, silent_after: timedelta
) -> SyncHealth:
    from dataclasses import replace

    connection = airbyte.find_connection(connection_id)
    jobs = airbyte.loads_since(connection_id, now - 2 * silent_after) if connection else []
    if connection and not jobs:
        newest = airbyte.newest_sync(connection_id)
        jobs = [newest] if newest else []
    health = health_of(connection_id, sources, connection, jobs, now, silent_after)
    if health.state == "failed" and health.newest:
        return replace(health, reason=airbyte.failure_reason(health.newest.job_id))
    return health


def _stale(run: RunContext) -> list[Stale]:
    with one_writer(run.target, holder=run.holder):
        try:
            result = tasks.source_freshness(run.target, project_dir=str(run.project.folder))
        except DbtRunFailed as exc:
            if exc.finished_result is None:
                raise
            result = exc.finished_result
    return stale_sources(result, result.artifacts.manifest)


def _due(found: PipelineFailure, connections: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the connections whose sync may help: unhealthy ones, and those of stale sources."""
    stale = {each.source for each in found.stale}
    return [
        health.connection_id
        for health in found.connections
        if health.state in ("failed", "cancelled", "silent")
        or (health.state == "well" and stale.intersection(connections[health.connection_id]))
    ]


def _is_confirmed(found: PipelineFailure, due: Sequence[str]) -> bool:
    """Ask in the Prefect UI, and wait for the answer in this process."""
    from prefect.exceptions import FlowPauseTimeout
    from prefect.flow_runs import pause_flow_run
    from prefect.input import RunInput
    from pydantic import Field, create_model

    form = create_model(
        "RestartSyncs",
        __base__=RunInput,
        decision=(
            Literal["sync again", "leave it"],
            Field(
                title="What to do", description="Starts these syncs in Airbyte, waits, and builds what depends on them."
            ),
        ),
    )
    form._description = "\n".join(  # pyright: ignore[reportPrivateUsage]  (what RunInput.with_initial_data does)
        [f"**{count_of(len(due), 'connection')} to be synced again**", "", *(f"- {line}" for line in lines_of(found))]
    )
    current_reporter().note("Waiting for a confirmation of the restart in the Prefect UI.")
    try:
        answer = pause_flow_run(wait_for_input=form, timeout=_ASK_SECONDS, poll_interval=5, key="restart")
    except FlowPauseTimeout as exc:
        raise UpstreamUnavailable("The restart was not confirmed within an hour, so nothing was started.") from exc
    return getattr(answer, "decision", "") == "sync again"


def _synced(due: Sequence[str], patience: SyncPatience, target: str) -> dict[str, Job]:
    """Start the syncs, all at once, and return them when all have succeeded."""
    from flows.alerts import close_incident

    airbyte = find_airbyte(patience)
    if airbyte is None:
        raise ConfigError("No Airbyte is set up, so no sync can be started. Set AIRBYTE_API_URL and set up again.")
    with airbyte:
        started = {connection: airbyte.start_sync(connection) for connection in due}
        for connection, job in started.items():
            current_reporter().note(f"Airbyte's sync {job.job_id} of connection {connection} is {job.status}.")
        ended = {connection: airbyte.wait(job) for connection, job in started.items()}
        bad = [
            f"sync {job.job_id} of {connection} {job.status}: {airbyte.failure_reason(job.job_id) or 'no reason given'}"
            for connection, job in ended.items()
            if job.status != "succeeded"
        ]
    if bad:
        raise UpstreamUnavailable(f"Airbyte's syncs did not succeed, so nothing was built: {'; '.join(bad)}")
    for connection in ended:
        close_incident(incident_key(connection), target)
    return ended


def lines_of(found: PipelineFailure) -> list[str]:
    """Return what was found, a line each."""
    lines = [f"Airbyte does not answer: {found.airbyte_error}"] if found.airbyte_error else []
    for health in found.connections:
        job = health.newest
        last = f"job {job.job_id} {job.status}" if job else "never synced"
        why = f" ({health.reason})" if health.reason else ""
        lines.append(f"connection {health.name or health.connection_id} is {health.state}: {last}{why}")
    if found.database:
        lines.append(str(found.database))
    return lines + [str(each) for each in found.stale]


def _tell(found: PipelineFailure) -> None:
    from flows.alerts import Incident, close_incident, open_incident

    for health in found.connections:
        if health.state == "well":
            close_incident(incident_key(health.connection_id), found.target)
        else:
            open_incident(health_incident(health, found.target))
    for key, error in (
        ("airbyte/server", found.airbyte_error),
        ("source database/reachable", found.database.error if found.database else None),
    ):
        if error:
            title = f"{key.partition('/')[0]} does not answer"
            open_incident(Incident(key, "error", title, error, found.target))
        else:
            close_incident(key, found.target)


def _publish(found: PipelineFailure) -> None:
    from prefect.artifacts import create_markdown_artifact

    lines = lines_of(found) or ["Nothing is wrong with what loads the sources."]
    said = [f"- {markdown_text(line)}" for line in lines]
    with attaching():
        create_markdown_artifact(
            "\n".join([f"## Why no new data arrives in {markdown_code(found.target)}", "", *said]),
            key=key_of("pipeline-failure", found.target),
            description=f"The loaders of {found.target}",
        )
