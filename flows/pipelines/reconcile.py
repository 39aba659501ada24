"""Find finished Airbyte syncs without a run, start one run for them, and alert on unhealthy connections.

Airbyte announces a finished sync once, without a retry, and does not announce cancelled and refreshed ones. So on a
schedule this flow compares Airbyte's jobs with the runs on the Prefect server. Each run has the tags of the syncs that
it covers, so there is no cursor that could be lost or be wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prefect import flow

from flows.alerts.hooks import with_alerts
from flows.engine.context.project import read_project
from flows.engine.context.reporting import current_reporter
from flows.services.airbyte.client import AirbyteClient, AirbyteConnection, Job, load_airbyte
from flows.services.airbyte.sync_events import (
    DEPLOYMENT,
    START_LIMIT,
    START_SIGN,
    AirbyteSync,
    connections_of,
    freshness_hours_of,
    idempotency_key,
    run_parameters,
    sources_of,
    syncs_of,
)
from flows.services.airbyte.sync_health import SyncHealth, health_incident, health_of, incident_key
from infrastructure.errors import ConfigError
from infrastructure.plain_text import count_of
from infrastructure.server.slots import START_TERMS, holding

# How long a source may go without new data where its meta sets nothing.
DEFAULT_FRESHNESS_HOURS = 24.0
# A start is two requests that have to end before the lock does: each is sent once, with this timeout.
_ANSWER_SECONDS = 15.0


@dataclass(frozen=True)
class Reconciliation:
    """The result of one reconciliation.

    Attributes:
        connections: the health of each connection of the project.
        missed: the syncs without a run.
        flow_run_id: the run that was started for them; None where there were none.
    """

    target: str
    connections: tuple[SyncHealth, ...]
    missed: tuple[AirbyteSync, ...]
    flow_run_id: str | None


@with_alerts
@flow(flow_run_name="reconcile-airbyte-{target}", validate_parameters=True)
def reconcile_airbyte(
    target: str = "prod",
    deployment: str = DEPLOYMENT,
    lookback_hours: float = 24,
    grace_minutes: float = 5,
    project_dir: str | None = None,
) -> Reconciliation:
    """Start one run for all finished syncs without a run, and alert on unhealthy connections.

    Args:
        target: the target of the run and of the alerts.
        deployment: <flow>/<deployment> of `dbt_transformation_flow`.
        lookback_hours: syncs that ended longer ago are left to the nightly build.
        grace_minutes: more recent syncs are left to the webhook.

    Raises:
        ConfigError: no Airbyte is set up, it refuses the credentials, or there is no such deployment.
        UpstreamUnavailable: Airbyte or the Prefect server does not answer.
    """
    project = read_project(project_dir)
    connections = connections_of(project.folder, os.environ)
    if not connections:
        raise ConfigError(
            f"No source of the dbt project {project.name} names an Airbyte connection, so there is nothing to do. "
            "Name it under the source's `config: meta: airbyte_connection_id:`."
        )
    now = datetime.now(UTC)
    silent_after = _silent_after(connections, freshness_hours_of(project.folder))
    found: dict[str, list[Job]] = {}
    healths: list[SyncHealth] = []
    with load_airbyte() as airbyte:
        for connection_id, sources in connections.items():
            span = max(timedelta(hours=lookback_hours), 2 * silent_after[connection_id])
            connection, jobs = _asked(airbyte, connection_id, now - span)
            health = health_of(connection_id, sources, connection, jobs, now, silent_after[connection_id])
            healths.append(_with_reason(health, airbyte))
            found[connection_id] = jobs
    _tell(healths, target)
    finished = finished_syncs(found, now - timedelta(hours=lookback_hours), now - timedelta(minutes=grace_minutes))
    missed, flow_run_id = start_missed(finished, connections, target, deployment)
    _say(missed, flow_run_id, healths)
    return Reconciliation(target, tuple(healths), tuple(missed), flow_run_id)


def finished_syncs(jobs: Mapping[str, Sequence[Job]], since: datetime, until: datetime) -> list[AirbyteSync]:
    """Return the syncs that succeeded between two times."""
    return [
        AirbyteSync(connection_id, job.job_id)
        for connection_id, each in jobs.items()
        for job in each
        if job.status == "succeeded" and job.last_updated_at and since <= job.last_updated_at <= until
    ]


def without_known(finished: Iterable[AirbyteSync], known: Iterable[AirbyteSync]) -> list[AirbyteSync]:
    """Return the syncs without a run, neither their own nor that of a later sync of their connection."""
    newest: dict[str, int] = {}
    for sync in known:
        newest[sync.connection_id] = max(sync.job_id, newest.get(sync.connection_id, 0))
    return sorted(sync for sync in finished if sync.job_id > newest.get(sync.connection_id, 0))


def start_missed(
    finished: Sequence[AirbyteSync], connections: Mapping[str, Sequence[str]], target: str, deployment: str
) -> tuple[list[AirbyteSync], str | None]:
    """Start one run for the syncs without a run; return them, and the run's id.

    All starters of runs hold START_LIMIT while they look for runs and start one.

    Raises:
        ConfigError: there is no such deployment.
        UpstreamUnavailable: the Prefect server does not answer.
    """
    from flows.engine.target.server_lease import asking
    from infrastructure.server.client import connect

    if not finished:
        return [], None
    with (
        connect(answer_seconds=_ANSWER_SECONDS) as server,
        holding(server, START_LIMIT, START_SIGN, START_TERMS) as require_held,
    ):
        known = [sync for tags in server.tags_of_runs([s.tag for s in finished]) for sync in syncs_of(tags)]
        missed = without_known(finished, known)
        if not sources_of(missed, connections):
            return [], None
        parameters = run_parameters(missed, connections, target)
        tags = [sync.tag for sync in missed]
        require_held()
        with asking(once=True):
            return missed, server.start_run(deployment, parameters, tags, idempotency_key(missed, deployment))


def _silent_after(connections: Mapping[str, Sequence[str]], hours: Mapping[str, float]) -> dict[str, timedelta]:
    """Return how long each connection may go without a successful sync: the shortest limit of its sources."""
    return {
        connection_id: timedelta(hours=min(hours.get(source, DEFAULT_FRESHNESS_HOURS) for source in sources))
        for connection_id, sources in connections.items()
    }


def _asked(airbyte: AirbyteClient, connection_id: str, since: datetime) -> tuple[AirbyteConnection | None, list[Job]]:
    """Return a connection and its jobs, oldest first; None and no jobs where Airbyte does not have it."""
    connection = airbyte.find_connection(connection_id)
    if connection is None:
        return None, []
    jobs = airbyte.loads_since(connection_id, since)
    if not jobs:
        # A job that runs for longer, or ended before, is still the newest.
        newest = airbyte.newest_sync(connection_id)
        jobs = [newest] if newest else []
    return connection, jobs


def _with_reason(health: SyncHealth, airbyte: AirbyteClient) -> SyncHealth:
    from dataclasses import replace

    if health.state != "failed" or health.newest is None:
        return health
    return replace(health, reason=airbyte.failure_reason(health.newest.job_id))


def _tell(healths: Sequence[SyncHealth], target: str) -> None:
    from flows.alerts import close_incident, open_incident

    for health in healths:
        if health.state == "well":
            close_incident(incident_key(health.connection_id), target)
        else:
            open_incident(health_incident(health, target))


def _say(missed: Sequence[AirbyteSync], flow_run_id: str | None, healths: Sequence[SyncHealth]) -> None:
    note = current_reporter().note
    badly = [health for health in healths if health.state != "well"]
    for health in badly:
        note(f"Connection {health.connection_id} of {', '.join(health.sources)}: {health.state}.")
    if flow_run_id:
        note(f"Started flow run {flow_run_id} for {count_of(len(missed), 'sync')} not announced.")
    else:
        note("Every finished sync has its run: nothing to start.")
