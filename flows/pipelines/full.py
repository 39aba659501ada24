"""The main flow: check that the sources are fresh, then build and test everything in the order of the DAG."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from prefect import flow

from flows.alerts.hooks import with_alerts
from flows.engine.artifacts.results import DbtResult
from flows.engine.changed.freshness import may_check, sources_to_check
from flows.engine.context.command import DbtCommand
from flows.engine.context.deadline import time_limit
from flows.engine.context.options import RETRIES, RunOptions
from flows.engine.context.run_context import flow_run_name, open_context, project_at
from flows.engine.context.state import state_of
from flows.engine.ledger.resume import options_of
from flows.engine.process.door import Dbt
from flows.engine.process.process import dbt_ahead
from flows.engine.target.file_lock import one_writer
from flows.pipelines import tasks


@dataclass(frozen=True)
class PipelineResult:
    """The result of each command of a pipeline; None for one that was left out.

    Attributes:
        freshness: None too where the project checks no freshness.
    """

    target: str
    flow_run_id: str | None
    freshness: DbtResult | None
    build: DbtResult
    docs: DbtResult | None


@with_alerts
@flow(flow_run_name=flow_run_name("build"), validate_parameters=True)
def dbt_full_pipeline(  # noqa: PLR0913  (its form in Prefect's UI)
    target: str = "dev",
    select: str | None = None,
    exclude: str | None = None,
    full_refresh: bool = False,
    vars: dict[str, Any] | None = None,
    selector: str | None = None,
    project_dir: str | None = None,
    freshness: bool = True,
    docs: bool = False,
    resume: bool = False,
    changed: bool = False,
    defer_to: str | None = None,
    wait: bool = True,
    retries: int = RETRIES,
    timeout_seconds: float | None = None,
    fail_fast: bool = False,
    threads: int | None = None,
    allow_nothing: bool = False,
    resume_run: str | None = None,
    empty: bool = False,
    sample: str | None = None,
    event_time_start: str | None = None,
    event_time_end: str | None = None,
    store_failures: bool = False,
    indirect_selection: str | None = None,
) -> PipelineResult:
    """Run a dbt project on a target: source freshness, then seeds, snapshots, models and tests.

    Args:
        target: names the block dbt-cli-profile-<target> and the concurrency limit dbt-<target>.
        select: dbt selection; everything when None.
        exclude: dbt selection to exclude.
        full_refresh: rebuild incremental models and seeds from scratch.
        vars: dbt variables.
        selector: a selector of the project's selectors.yml, in place of select and exclude.
        project_dir: another dbt project than the repository's own.
        freshness: stop before building when a source is older than its error_after.
        docs: generate the documentation site at the end.
        resume: build only what the last run with these options left undone, if it was interrupted or failed.
        changed: build only what changed in code or data since its last build, and reuse the rest.
        defer_to: build only what differs from this target's last good state, and read the rest from there.
        wait: wait while another run writes to the target; otherwise fail at once.
        retries: how often to retry a node after a transient failure.
        timeout_seconds: stop after so long, waiting included; None for no limit.
        fail_fast: start no further node after a failure.
        threads: how many nodes run at a time; as in the profile when None.
        allow_nothing: succeed, rather than fail, when the selection matches no node.
        resume_run: with resume, the run to go on with, by the name of its folder or the beginning of it.
        empty: build every table without rows, to see that the SQL works; needs dbt 1.
        sample: build from the rows of a window of time alone, such as "3 days"; needs dbt 1.10 or later, and no dbt 2.
        event_time_start: with event_time_end, build the batches of microbatch models of that time, its end excluded.
        store_failures: keep the rows that each test finds in a table.
        indirect_selection: which tests of the selected nodes come along: eager, cautious, buildable or empty.

    Raises:
        DbtRunFailed: a node failed, or a source is too old.
        RunTimedOut: it took longer than timeout_seconds; Prefect shows the run as TimedOut.
        prefect.exceptions.CancelledRun: a signal or a cancel stopped a run that no worker looks after.
        ConfigError: a block, the project, a profile or an adapter is missing.
    """
    options = RunOptions.of(locals())
    project = project_at(project_dir)
    checks_freshness = options.freshness and may_check(state_of(project, target, os.environ))
    place = str(project.folder)
    with ExitStack() as stack:
        # Fails at once when the target is not set up, before it waits for the lock.
        run = stack.enter_context(open_context(target, project))
        options = options_of(options, run.state)
        Dbt(run.project, run.profile).require_able(options.command("build"))
        stack.enter_context(dbt_ahead((not options.changed) + checks_freshness, dbt=run.profile.dbt))
        stack.enter_context(time_limit(options.timeout_seconds))
        stack.enter_context(one_writer(target, holder=run.holder, wait=options.wait))
        checked = None
        asked = DbtCommand("build", options.select, options.exclude, options.selector, vars=options.vars)
        if options.freshness and (sources := sources_to_check(asked, project, run.profile)) != ():
            found = tasks.source_freshness(target, " ".join(sources or ()) or None, options.vars, place)
            checked = found if found.nodes else None
        built = tasks.build(target, project_dir=place, options=options)
        documented = tasks.docs(target, options.vars, place) if options.docs else None
    return PipelineResult(target, str(run.flow_run.id) if run.flow_run else None, checked, built, documented)
