"""The flows that a finished sync starts: build and test what depends on a source, and fill the dashboard cache.

A critical test (`meta: {critical: true}`) stops what is downstream of the tested model and fails the run. All other
tests run after the build, whatever their severity; when one fails, an alert is sent and the run still succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.alerts.hooks import with_alerts
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.events import UNTOLD
from flows.engine.context.options import RunOptions
from flows.engine.context.project import Project
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import current_flow_run, flow_run_name, open_context, project_at
from flows.engine.target.file_lock import one_writer
from flows.pipelines import tasks
from flows.pipelines.selections import CRITICAL_NODES, UNIT_TESTS, built_and_critical, downstream, towards_dashboards
from flows.services.airbyte.client import Job, SyncPatience
from flows.services.airbyte.sync_events import source_names
from infrastructure.errors import ConfigError, DbtRunFailed, UpstreamUnavailable, preview
from infrastructure.plain_text import count_of
from infrastructure.yaml_file import meant

# How long the cache keeps its documents when no run refreshes them.
CACHE_HOURS = 6.0


@dataclass(frozen=True)
class Transformation:
    """The results of a transformation.

    Attributes:
        sources: the dbt sources that it started from; empty for all.
        syncs: the Airbyte jobs that were checked, by connection.
        build: models, seeds and snapshots, with the critical tests among them.
        tests: the other tests; None where a separate run has them.
        cached: rows put into the dashboard cache, by model.
    """

    sources: tuple[str, ...]
    target: str
    flow_run_id: str | None
    build: DbtResult
    tests: DbtResult | None = None
    syncs: Mapping[str, Job] = field(default_factory=dict[str, Job])
    cached: Mapping[str, int] = field(default_factory=dict[str, int])


@with_alerts
@flow(flow_run_name=flow_run_name("transform", "source"), validate_parameters=True)
def dbt_transformation_flow(
    source: str | list[str],
    connection_id: str | None = None,
    full_refresh: bool = False,
    target: str = "prod",
    jobs: dict[str, int] | None = None,
    project_dir: str | None = None,
    sync_deadline_minutes: float = 60,
) -> Transformation:
    """Build and test what depends on a source: its staging models and everything downstream of them.

    Args:
        source: name of a dbt source, or several, for syncs that finished together.
        connection_id: an Airbyte connection whose newest sync must have succeeded; a running one is awaited.
        full_refresh: rebuild incremental models from scratch.
        target: names the block dbt-cli-profile-<target> and the concurrency limit dbt-<target>.
        jobs: Airbyte jobs that must have succeeded, by connection, as an event names them.
        project_dir: another dbt project than the repository's own.
        sync_deadline_minutes: how long to wait for a running sync.

    Raises:
        ConfigError: the project has no such source, or a block is missing.
        UpstreamUnavailable: the sync failed or did not end in time; nothing was built.
        DbtRunFailed: a model or a critical test failed.
    """
    project = project_at(project_dir)
    sources = known_sources(project, source)
    with open_context(target, project):
        patience = SyncPatience(deadline_seconds=sync_deadline_minutes * 60)
        asked = _syncs(connection_id, jobs)
        syncs = {name: check_sync(name, job_id, target, patience) for name, job_id in asked.items()}
        checked = {name: job for name, job in syncs.items() if job}
        build, tests = build_and_test(downstream(sources), target, project_dir, full_refresh)
        return Transformation(sources, target, _run_id(), build, tests, checked)


@with_alerts
@flow(name="full-dbt-refresh", flow_run_name=flow_run_name("build"), validate_parameters=True)
def nightly_build(target: str = "prod", full_refresh: bool = False, project_dir: str | None = None) -> Transformation:
    """Build and test everything, once a day, so that data without an event is in the marts by morning.

    Args:
        full_refresh: rebuild incremental models from scratch.

    Raises:
        DbtRunFailed: a model or a critical test failed.
        ConfigError: a block, the project, a profile or an adapter is missing.
    """
    build, tests = build_and_test([], target, project_dir, full_refresh)
    return Transformation((), target, _run_id(), build, tests)


@with_alerts
@flow(flow_run_name=flow_run_name("fast-transform", "source"), validate_parameters=True)
def fast_transform(
    source: str | list[str],
    target: str = "prod",
    project_dir: str | None = None,
    cache_hours: float = CACHE_HOURS,
    tests_deployment: str | None = None,
) -> Transformation:
    """Bring a source's new data to the dashboards first: build only what they read, fill their cache, test afterwards.

    It builds what lies between the source and the models with the tag dashboard. Their tests, critical ones included,
    are a separate flow run, which can fail without failing this one.

    Args:
        cache_hours: how long the cache keeps its documents.
        tests_deployment: <flow>/<deployment> of `dashboard_tests`, to start without waiting; without it the tests
            run here, after everything else.

    Raises:
        ConfigError: the project has no such source, or no model with the tag dashboard depends on it.
        DbtRunFailed: a model failed.
    """
    from flows.pipelines.dashboard_cache import warm

    project = project_at(project_dir)
    sources = known_sources(project, source)
    with open_context(target, project) as run, one_writer(target, holder=run.holder):
        build = tasks.run(target, " ".join(towards_dashboards(sources)), project_dir=project_dir)
        if not build.nodes:
            raise ConfigError(
                f"No model with the tag dashboard depends on source {', '.join(sources)}. Give dashboards' models "
                "`config: {tags: [dashboard]}`."
            )
        cached = warm(build, project, run.profile, cache_hours)
    if tests_deployment:
        _start_tests(tests_deployment, sources, target, project_dir)
    else:
        dashboard_tests(list(sources), target, project_dir, return_state=True)
    return Transformation(sources, target, _run_id(), build, cached=cached)


@with_alerts
@flow(flow_run_name=flow_run_name("dashboard-tests", "source"), validate_parameters=True)
def dashboard_tests(source: str | list[str], target: str = "prod", project_dir: str | None = None) -> DbtResult:
    """Test what `fast_transform` builds of a source.

    Raises:
        DbtRunFailed: a critical test failed.
    """
    sources = known_sources(project_at(project_dir), source)
    return _tested(" ".join(towards_dashboards(sources)), UNIT_TESTS, target, project_dir)


def build_and_test(
    words: Sequence[str], target: str, project_dir: str | None, full_refresh: bool = False
) -> tuple[DbtResult, DbtResult]:
    """Build a selection with its critical tests in the order of the DAG, then run its other tests.

    Args:
        words: dbt selection, as `downstream` returns it; everything when there are none.

    Raises:
        DbtRunFailed: a model or a critical test failed; the other tests were not run.
    """
    options = RunOptions(
        built_and_critical(words), full_refresh=full_refresh, indirect_selection="empty", allow_nothing=True
    )
    with open_context(target, project_dir) as run, one_writer(target, holder=run.holder):
        build = tasks.build(target, project_dir=project_dir, options=options)
        tests = _tested(" ".join(words) or None, f"{CRITICAL_NODES} {UNIT_TESTS}", target, project_dir, "empty")
    return build, tests


@task(name="check Airbyte sync", cache_policy=NO_CACHE)
def check_sync(connection_id: str, job_id: int | None, target: str, patience: SyncPatience) -> Job | None:
    """Wait for the sync of a build, and return it once it has succeeded.

    Args:
        job_id: the job that an event named; the connection's newest sync when None.

    Returns:
        None where an event named the job and no Airbyte is set up.

    Raises:
        UpstreamUnavailable: it failed, was cancelled or did not end in time.
        ConfigError: there has been no sync, or no Airbyte is set up.
    """
    from flows.alerts import open_incident
    from flows.services.airbyte.client import find_airbyte, load_airbyte
    from flows.services.airbyte.sync_health import sync_incident

    airbyte = find_airbyte(patience) if job_id else load_airbyte(patience)
    if airbyte is None:
        current_reporter().note(f"No Airbyte is set up, so job {job_id} of {connection_id} counts as succeeded.")
        return None
    with airbyte:
        job = airbyte.job(job_id) if job_id else airbyte.newest_sync(connection_id)
        if job is None:
            raise ConfigError(f"Airbyte's connection {connection_id} has never been synced. Start its first sync.")
        if not job.has_ended:
            current_reporter().note(f"Waiting for Airbyte's job {job.job_id}, which is {job.status}.")
        job = airbyte.wait(job)
        if job.status == "succeeded":
            return job
        reason = airbyte.failure_reason(job.job_id)
    incident = sync_incident(connection_id, (), job, reason, target)
    open_incident(incident)
    error = UpstreamUnavailable(f"{incident.title}, so nothing was built. {incident.text}")
    error.is_told = True
    raise error


def known_sources(project: Project, source: str | list[str]) -> tuple[str, ...]:
    """Return the names of the given sources.

    Raises:
        ConfigError: the project has none of that name.
    """
    names = (source,) if isinstance(source, str) else tuple(dict.fromkeys(source))
    there = source_names(project.folder)
    unknown = [name for name in names if name not in there]
    if unknown or not names:
        near = meant(unknown[0], there) if unknown else ""
        raise ConfigError(
            f"The dbt project {project.name} has no source {' or '.join(unknown) or 'without a name'}"
            f"{near or f'. It has {preview(there)}.'}"
        )
    return names


def _syncs(connection_id: str | None, jobs: Mapping[str, int] | None) -> dict[str, int | None]:
    newest: dict[str, int | None] = {connection_id: None} if connection_id else {}
    return newest | dict(jobs or {})


def _tested(
    select: str | None, exclude: str, target: str, project_dir: str | None, indirect_selection: str | None = None
) -> DbtResult:
    """Run tests; one that fails and is not critical causes an alert, but does not fail the run.

    Raises:
        DbtRunFailed: a critical test failed, or dbt did.
    """
    try:
        return tasks.test(target, select, exclude, project_dir=project_dir, indirect_selection=indirect_selection)
    except DbtRunFailed as exc:
        result: DbtResult | None = exc.finished_result
        if result is None or critical_failures(result):
            raise
        current_reporter().note(
            f"{count_of(len(exc.failed), 'test')} failed, none of them critical: the run continues."
        )
        return result


def critical_failures(result: DbtResult) -> list[str]:
    """Return the unique ids of what failed, or was skipped, and is critical, unknown, or no test at all.

    A test that dbt left without an outcome counts, too: nothing says what came of it.
    """
    nodes = result.artifacts.manifest.nodes
    return [
        bad.unique_id
        for bad in result.of("failed", "skipped")
        if bad.resource_type not in ("test", "unit_test")
        or bad.status in UNTOLD
        or (node := nodes.get(bad.unique_id)) is None
        or node.is_critical
    ]


def _start_tests(deployment: str, sources: Sequence[str], target: str, project_dir: str | None) -> None:
    from prefect.deployments import run_deployment

    parameters: dict[str, Any] = {"source": list(sources), "target": target, "project_dir": project_dir}
    started = run_deployment(deployment, parameters=parameters, timeout=0, as_subflow=False)
    current_reporter().note(f"The tests are flow run {getattr(started, 'name', deployment)}.")


def _run_id() -> str | None:
    run = current_flow_run()
    return str(run.id) if run else None
