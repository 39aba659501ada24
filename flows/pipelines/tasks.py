"""dbt's commands as Prefect tasks, each on the profile block of a target, in or outside a flow."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.alerts.runs import report_nodes
from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.results import DbtResult
from flows.engine.changed.defer import deferred
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RETRIES, RunOptions
from flows.engine.context.run_context import RunContext, open_context
from flows.engine.context.state import State
from flows.engine.run import Ended, run_dbt
from flows.engine.sinks.last_state import do_beside_the_end, is_followed, send_lines_beside_the_end
from flows.engine.sinks.recorder import Recorder, Sparing
from flows.engine.sinks.sending import EventsApi
from flows.engine.sinks.stopping import cut_off_by_a_stop
from flows.engine.sinks.unsent import unsent_events
from flows.engine.target.file_lock import one_writer
from flows.history.record import record
from flows.pipelines.after_crash import after_crash
from flows.pipelines.ci_schemas import claim_schemas
from flows.report.artifacts import publish
from flows.report.html.summary import publish_overview
from flows.report.node_artifacts import publish_nodes
from infrastructure.errors import DbtRunFailed, TributaryError

# Of `docs generate`: one file that opens in any browser.
STATIC = ("--static",)
# A task in a user's flow may select what a project does not have yet; `build` takes options for the opposite.
_asked = partial(RunOptions, allow_nothing=True)


@task(name="dbt source freshness", task_run_name="dbt source freshness", cache_policy=NO_CACHE)
def source_freshness(
    target: str = "dev",
    select: str | None = None,
    vars: Mapping[str, Any] | None = None,
    project_dir: str | None = None,
) -> DbtResult:
    """Check the age of the sources; one beyond its error_after fails, one beyond its warn_after is a warning."""
    return _run("source freshness", _asked(select, vars=vars or {}), target, project_dir)


@task(name="dbt seed", task_run_name="dbt seed", cache_policy=NO_CACHE)
def seed(
    target: str = "dev",
    select: str | None = None,
    exclude: str | None = None,
    full_refresh: bool = False,
    vars: Mapping[str, Any] | None = None,
    project_dir: str | None = None,
) -> DbtResult:
    """Load the project's CSV files."""
    return _run("seed", _asked(select, exclude, None, full_refresh, vars or {}), target, project_dir)


@task(name="dbt snapshot", task_run_name="dbt snapshot", cache_policy=NO_CACHE)
def snapshot(
    target: str = "dev",
    select: str | None = None,
    exclude: str | None = None,
    vars: Mapping[str, Any] | None = None,
    project_dir: str | None = None,
) -> DbtResult:
    """Record what changed since the last snapshot."""
    return _run("snapshot", _asked(select, exclude, vars=vars or {}), target, project_dir)


@task(name="dbt run", task_run_name="dbt run", cache_policy=NO_CACHE)
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
    return _run("run", _asked(select, exclude, selector, full_refresh, vars or {}), target, project_dir)


@task(name="dbt test", task_run_name="dbt test", cache_policy=NO_CACHE)
def test(  # noqa: PLR0913  (what a flow of a user's own can ask for)
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
        store_failures: keep the rows that each test finds in a table.
        indirect_selection: as `build` takes it.
        nodes: unique ids of the tests to run, and no others.
    """
    options = _asked(
        select,
        exclude,
        selector,
        vars=vars or {},
        indirect_selection=indirect_selection,
        store_failures=store_failures,
    )
    return _run("test", options, target, project_dir, nodes=nodes)


@task(name="dbt build", task_run_name="dbt build", cache_policy=NO_CACHE)
def build(  # noqa: PLR0913  (what a flow of a user's own can ask for)
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
    options: RunOptions | None = None,
) -> DbtResult:
    """Seed, snapshot, run and test in the order of the DAG, so that bad data stops what is downstream.

    Args:
        resume: do only what the last build with these options left undone, if it was interrupted or failed.
        retries: how often to retry a node after a transient failure.
        indirect_selection: which tests of the selected nodes come along, in dbt's words; "empty" for none but those
            that are selected themselves.
        changed: build only what changed in code or data since its last build, and reuse the rest.
        defer_to: build only what differs from this target, and read everything else from there.
        options: all options of a run, in place of the other parameters except target and project_dir.

    Raises:
        ConfigError: two options exclude each other.
    """
    if options is None:
        options = _asked(
            select,
            exclude,
            selector,
            full_refresh,
            vars or {},
            resume,
            changed,
            defer_to,
            retries,
            indirect_selection=indirect_selection,
        )
    return _run("build", options, target, project_dir)


@task(name="dbt command", task_run_name="dbt command", cache_policy=NO_CACHE)
def command(
    verb: str,
    options: RunOptions,
    target: str = "dev",
    project_dir: str | None = None,
    flags: Sequence[str] = (),
) -> DbtResult:
    """Run any dbt command that writes.

    Args:
        verb: as typed after `dbt`.
        flags: arguments of the command itself.
    """
    return _run(verb, options, target, project_dir, flags)


@task(name="dbt docs generate", task_run_name="dbt docs generate", cache_policy=NO_CACHE)
def docs(target: str = "dev", vars: Mapping[str, Any] | None = None, project_dir: str | None = None) -> DbtResult:
    """Generate the documentation site, as one file that opens in any browser: target_path/static_index.html."""
    return _run("docs generate", RunOptions(vars=vars or {}), target, project_dir, STATIC)


def _run(
    verb: str,
    options: RunOptions,
    target: str,
    project_dir: str | None,
    flags: Sequence[str] = (),
    nodes: Sequence[str] | None = None,
) -> DbtResult:
    with cut_off_by_a_stop(), open_context(target, project_dir) as run, one_writer(target, holder=run.holder):
        command = options.command(verb, flags, nodes)
        run.reporter.stage(f"{command.name} on {target}")
        options = after_crash(options, command, run)
        if options.defer_to:
            command = deferred(command, run.project, run.profile, options.defer_to, options.resume)
        claim_schemas(command, run.project, run.profile)
        return run_dbt(command, run, options, _recorder(run), _ended(run, command))


def _recorder(run: RunContext) -> Callable[[State], Recorder | None]:
    def recorder(state: State) -> Recorder | None:
        if run.flow_run is None:
            return None
        connection = EventsApi()
        return Recorder(
            run.flow_run,
            connection.sender,
            Artifacts(state.target_path),
            unsent=unsent_events(os.environ),
            sparing=Sparing(connection.has_recorded, leaves_rest=is_followed()),
            task_runs=run.profile.task_runs,
        )

    return recorder


def _ended(run: RunContext, command: DbtCommand) -> Ended:
    def ended(result: DbtResult, error: TributaryError | None) -> None:
        send_lines_beside_the_end()
        if command.verb == "source freshness" and not result.nodes and error is None:
            return  # No source has a freshness: there is nothing to report.
        if error is None:
            do_beside_the_end(partial(publish, result))
        record(result, command, run.profile, error)
        # It has an error say what to do, and the rows of failing tests: the artifact has the same.
        report_nodes(result, command, run.project, run.profile, error)
        explanation = error.explanation if isinstance(error, DbtRunFailed) else None
        if error is not None:
            do_beside_the_end(partial(publish, result, explanation))
        do_beside_the_end(partial(publish_nodes, result, explanation))
        if command.verb == "build":
            do_beside_the_end(partial(publish_overview, run.state.project, run.target))

    return ended
