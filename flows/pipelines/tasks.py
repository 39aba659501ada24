"""dbt's commands as Prefect tasks: each on the profile block of a target, alone or inside any flow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from flows.alerts.runs import report_nodes
from flows.engine.artifacts.results import DbtResult
from flows.engine.changed.defer import deferred
from flows.engine.context.command import DbtCommand
from flows.engine.context.project import read_project
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import State
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from flows.engine.sinks.recorder import Recorder, prefect_sender
from flows.engine.sinks.task_runs import FlowRun
from flows.engine.sinks.unsent import unsent_events
from flows.engine.target.file_lock import one_writer
from flows.history.record import record
from flows.pipelines.ci_schemas import claim_schemas
from flows.report.artifacts import publish
from flows.report.html.summary import publish_overview
from infrastructure.errors import ConfigError, TributaryError
from infrastructure.profiles import load_profile

# Attempts of a node after its first, for failures that pass by themselves: a lost connection, a lock, a quota.
RETRIES = 2


@task(name="dbt source freshness", cache_policy=NO_CACHE)
def source_freshness(
    target: str = "dev",
    select: str | None = None,
    vars: Mapping[str, Any] | None = None,
    project_dir: str | None = None,
) -> DbtResult:
    """Check how old the sources are; a source beyond its error_after fails, one beyond its warn_after is a warning."""
    return _run(DbtCommand("source freshness", select=select, vars=vars or {}), target, project_dir)


@task(name="dbt seed", cache_policy=NO_CACHE)
def seed(
    target: str = "dev",
    select: str | None = None,
    exclude: str | None = None,
    full_refresh: bool = False,
    vars: Mapping[str, Any] | None = None,
    project_dir: str | None = None,
) -> DbtResult:
    """Load the project's CSV files."""
    return _run(DbtCommand("seed", select, exclude, None, full_refresh, vars or {}), target, project_dir)


@task(name="dbt snapshot", cache_policy=NO_CACHE)
def snapshot(
    target: str = "dev",
    select: str | None = None,
    exclude: str | None = None,
    vars: Mapping[str, Any] | None = None,
    project_dir: str | None = None,
) -> DbtResult:
    """Record what changed since the last snapshot."""
    return _run(DbtCommand("snapshot", select, exclude, vars=vars or {}), target, project_dir)


@task(name="dbt run", cache_policy=NO_CACHE)
def run(
    target: str = "dev",
    select: str | None = None,
    exclude: str | None = None,
    selector: str | None = None,
    full_refresh: bool = False,
    vars: Mapping[str, Any] | None = None,
    project_dir: str | None = None,
) -> DbtResult:
    """Build models without testing them."""
    return _run(DbtCommand("run", select, exclude, selector, full_refresh, vars or {}), target, project_dir)


@task(name="dbt test", cache_policy=NO_CACHE)
def test(
    target: str = "dev",
    select: str | None = None,
    exclude: str | None = None,
    selector: str | None = None,
    vars: Mapping[str, Any] | None = None,
    project_dir: str | None = None,
    store_failures: bool = False,
    indirect_selection: str | None = None,
    nodes: Sequence[str] | None = None,
) -> DbtResult:
    """Test what has been built.

    Args:
        store_failures: leave the rows that each test finds in a table of its own.
        indirect_selection: as `build` takes it.
        nodes: unique ids of the tests to run, and no others.
    """
    flags = ("--store-failures",) if store_failures else ()
    flags += ("--indirect-selection", indirect_selection) if indirect_selection else ()
    exactly = None if nodes is None else tuple(nodes)
    command = DbtCommand("test", select, exclude, selector, vars=vars or {}, flags=flags, nodes=exactly)
    return _run(command, target, project_dir)


@task(name="dbt build", cache_policy=NO_CACHE)
def build(
    target: str = "dev",
    select: str | None = None,
    exclude: str | None = None,
    selector: str | None = None,
    full_refresh: bool = False,
    vars: Mapping[str, Any] | None = None,
    project_dir: str | None = None,
    resume: bool = False,
    retries: int = RETRIES,
    indirect_selection: str | None = None,
    changed: bool = False,
    defer_to: str | None = None,
) -> DbtResult:
    """Seed, snapshot, run and test in the order of the DAG, so that bad data stops before what stands on it.

    Args:
        resume: do only what the last build like this one left undone, if it was cut off or failed.
        retries: attempts of a node after its first, for failures that pass by themselves.
        indirect_selection: which tests of the selected nodes come along, in dbt's words; "empty" for none but those
            that are selected themselves.
        changed: build only what changed in code or data since it was built last, and use the rest again.
        defer_to: build only what is modified compared with this target, and read everything else from there.

    Raises:
        ConfigError: two of these were asked for at once.
    """
    require_one_way(resume, changed, defer_to)
    flags = ("--indirect-selection", indirect_selection) if indirect_selection else ()
    command = DbtCommand("build", select, exclude, selector, full_refresh, vars or {}, flags)
    return _run(command, target, project_dir, resume, retries, changed, defer_to)


def require_one_way(resume: bool, changed: bool, defer_to: str | None) -> None:
    """Refuse ways of leaving nodes out that contradict each other.

    Raises:
        ConfigError: two of them were asked for at once.
    """
    if changed and resume:
        raise ConfigError(
            "--changed and --resume were both given. --changed builds what failed, was skipped or cut off anyway: "
            "leave --resume out."
        )
    if changed and defer_to:
        raise ConfigError(
            f"--changed compares with this target's own last run, --defer-to with {defer_to}: give only one of them."
        )


@task(name="dbt docs generate", cache_policy=NO_CACHE)
def docs(target: str = "dev", vars: Mapping[str, Any] | None = None, project_dir: str | None = None) -> DbtResult:
    """Generate the documentation site, as one file that opens in any browser: target_path/static_index.html."""
    return _run(DbtCommand("docs generate", vars=vars or {}, flags=("--static",)), target, project_dir)


def _run(
    command: DbtCommand,
    target: str,
    project_dir: str | None,
    resume: bool = False,
    retries: int = RETRIES,
    changed: bool = False,
    defer_to: str | None = None,
) -> DbtResult:
    project = read_project(project_dir)
    profile = load_profile(target)
    flow_run = current_flow_run()

    def recorder(state: State) -> Recorder | None:
        if flow_run is None:
            return None
        return Recorder(flow_run, prefect_sender, state.manifest, unsent=unsent_events(os.environ))

    def ended(result: DbtResult, error: TributaryError | None) -> None:
        record(result, command, project, profile, error)
        publish(result)
        report_nodes(result, command, project, profile, error)
        if command.verb == "build":
            publish_overview(project.name, profile.target)

    run_id = str(flow_run.id) if flow_run else str(uuid4())
    with one_writer(target, holder=holder_name(flow_run)):
        current_reporter().stage(f"{command.name} on {target}")
        if defer_to:
            command = deferred(command, project, profile, defer_to, resume)
        claim_schemas(command, project, profile)
        return run_dbt(command, project, profile, run_id, recorder, Retries(retries), resume, ended, changed)


def current_flow_run() -> FlowRun | None:
    """Return the flow run that this code runs in; None outside of one."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return None
    return FlowRun(context.flow_run.id, context.flow_run.name)


def is_on_its_own() -> bool:
    """Say whether the flow run was started by its own process: by no deployment and no other flow."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run is not None and run.deployment_id is None and run.parent_task_run_id is None


def holder_name(flow_run: FlowRun | None) -> str:
    """Return what others are told they wait for."""
    return f"flow run {flow_run.name}" if flow_run else f"a task of process {os.getpid()}"
