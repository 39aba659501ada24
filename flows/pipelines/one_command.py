"""One dbt command as a flow: its nodes are task runs, it has a ledger and an alert, and it holds its target."""

from __future__ import annotations

import os
from typing import Any

from prefect import flow
from prefect.runtime import flow_run as this_run

from flows.alerts.hooks import with_alerts
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.deadline import time_limit
from flows.engine.context.options import RunOptions
from flows.engine.context.run_context import open_context, project_at
from flows.engine.context.state import state_of
from flows.engine.ledger.resume import options_of
from flows.engine.process.door import Dbt
from flows.engine.target.file_lock import one_writer
from flows.pipelines import tasks
from infrastructure.errors import TributaryError


def _name() -> str:
    """Return the name of a flow run: its project, command and target."""
    parameters = this_run.get_parameters()
    verb, target = str(parameters.get("verb")).replace(" ", "-"), str(parameters.get("target"))
    try:
        project = state_of(project_at(parameters.get("project_dir")), target, os.environ).project
    except TributaryError:
        return f"dbt-{verb}-{target}"  # The flow itself reports what is wrong with the project.
    return f"dbt-{project}-{verb}-{target}"


@with_alerts
@flow(flow_run_name=_name, validate_parameters=True)
def dbt_command(
    verb: str,
    target: str = "dev",
    project_dir: str | None = None,
    flags: list[str] | None = None,
    options: dict[str, Any] | None = None,
) -> DbtResult:
    """Run one dbt command that writes to a target, such as `seed`, `test` or `run-operation`.

    Args:
        verb: as typed after `dbt`.
        target: names the block dbt-cli-profile-<target> and the concurrency limit dbt-<target>.
        project_dir: another dbt project than the repository's own.
        flags: arguments of the command itself, such as the macro of `run-operation`.
        options: what else is asked for, as the parameters of `dbt_full_pipeline` are named.

    Raises:
        DbtRunFailed: a node failed, or the command did.
        ConfigError: a block, the project, a profile or an adapter is missing, or dbt lacks an option.
    """
    asked = RunOptions.of(options or {})
    project = project_at(project_dir)
    with open_context(target, project) as run, time_limit(asked.timeout_seconds):
        asked = options_of(asked, run.state, verb)
        # Before the lock is waited for.
        Dbt(run.project, run.profile).require_able(asked.command(verb))
        with one_writer(target, holder=run.holder, wait=asked.wait):
            task = tasks.command.with_options(name=f"dbt {verb}", task_run_name=f"dbt {verb}")
            return task(verb, asked, target, str(project.folder), tuple(flags or ()))
