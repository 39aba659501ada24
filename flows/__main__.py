"""The command line: `tributary COMMAND`, or `python -m flows COMMAND`."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from importlib import import_module
from typing import Any, cast

import click

from infrastructure.commands import program
from infrastructure.console import EntryGroup, dumps, in_a_workspace, say
from infrastructure.errors import ConfigError, DbtRunFailed, TributaryError
from infrastructure.screen import echo, screen, styled
from infrastructure.workspace.places import ROOT

# In the order in which help lists them. A command is imported when it is asked for.
COMMANDS = {
    "run": "flows.cli.run:run",
    "build": "flows.cli.run:build",
    "plan": "flows.cli.plan:plan",
    **{verb: "flows.cli.one_command:" + verb.replace("-", "_") for verb in ("test", "seed", "snapshot")},
    "run-operation": "flows.cli.one_command:run_operation",
    "docs": "flows.cli.one_command:docs",
    **{verb: f"flows.cli.questions:{verb}" for verb in ("ls", "show", "compile")},
    "init": "flows.cli.init:init",
    "setup": "infrastructure.setup_profiles:main",
    "transform": "flows.cli.transform:transform",
    "fast-transform": "flows.cli.transform:fast_transform",
    "new-data": "flows.cli.transform:new_data",
    "reconcile": "flows.cli.reconcile:reconcile",
    "history": "flows.cli.history:history",
    "health": "flows.cli.health:health",
    "full-refresh": "flows.cli.full_refresh:full_refresh",
    "audit": "flows.cli.audit:audit",
    "compare": "flows.cli.compare:compare",
    "scd2-repair": "flows.cli.scd2_repair:scd2_repair",
    "payroll": "flows.cli.payroll:payroll",
    "triage": "flows.cli.triage:triage",
    "pipeline-failure": "flows.cli.pipeline_failure:pipeline_failure",
    "report": "flows.cli.report:report",
    "ingest-git": "flows.cli.ingest_git:ingest_git",
    "sample-data": "flows.cli.sample_data:sample_data",
    # Schedules stand above the flows that they run, and so does what serves them.
    "serve": "deployments.schedules.serve:serve",
    "deploy": "deployments.apply:main",
    "drop-schema": "flows.cli.drop_schema:drop_schema",
    "alerts": "flows.cli.alerts:alerts",
    "events": "flows.cli.events:events",
}


class _Commands(EntryGroup):
    """The commands of the table above; a dbt command that failed is shown node by node."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        return in_a_workspace(getattr(import_module(module), name))

    def tell(self, error: TributaryError, as_json: bool) -> None:
        from flows.engine.artifacts.results import DbtResult
        from flows.report.artifacts import as_document

        result = error.result if isinstance(error, DbtRunFailed) else None
        explanation = error.explanation if isinstance(error, DbtRunFailed) else None
        if as_json:
            steps = [result] if isinstance(result, DbtResult) else []
            why = {"failure": explanation.as_document()} if explanation else {}
            echo(dumps({**as_document(steps), "error": str(error), "kind": type(error).__name__, **why}))
            return
        if isinstance(result, DbtResult) and result.nodes:
            from flows.report.terminal import print_log_path, print_result

            if explanation:
                say(styled("Error: ", fg="red", bold=True) + f"{explanation.headline}.")
                print_result(screen(), result, explanation)
                return
            print_result(screen(), result)
            print_log_path(screen(), result)
        super().tell(error, as_json)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def main() -> None:
    """Run dbt on Prefect: build and test a project on one of your environments."""
    if not (ROOT / "pyproject.toml").exists():
        raise ConfigError(
            f"{ROOT} has a copy of Tributary's code without what belongs to it: Tributary runs in a clone of its "
            "repository, or an unpacked archive of it. There: uv run tributary run"
        )


def as_a_program() -> None:
    """Run the command line, and end this process as soon as all of it has come to its end."""
    # Prefect's import makes half a million objects that stay, which the collector would look through again and again.
    gc.set_threshold(50_000, 20, 50)
    try:
        main(prog_name=program().removeprefix("uv run "))
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            _leave(end.code or 0)
        raise


def _leave(code: int) -> None:
    """End this process without taking apart what it holds in memory, which takes 0.4 s after a run (2026-11-28).

    Threads are waited for before, and whatever asked to be called at the end is called, as `multiprocessing` does it.
    """
    cast(Any, threading)._shutdown()
    cast(Any, atexit)._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # Python ends in its own way, and says what was not written.
    os._exit(code)


if __name__ == "__main__":
    as_a_program()
