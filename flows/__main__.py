"""The command line: `python -m flows COMMAND`."""

from __future__ import annotations

from importlib import import_module

import click

from infrastructure.console import EntryGroup, dumps
from infrastructure.errors import DbtRunFailed, TributaryError
from infrastructure.screen import echo, screen

# In the order in which help lists them. A command is imported when it is asked for.
COMMANDS = {
    "run": "flows.commands.run:run",
    "plan": "flows.commands.plan:plan",
    "split": "flows.commands.split:split",
    "transform": "flows.commands.transform:transform",
    "fast-transform": "flows.commands.transform:fast_transform",
    "new-data": "flows.commands.transform:new_data",
    "reconcile": "flows.commands.reconcile:reconcile",
    "history": "flows.commands.history:history",
    "health": "flows.commands.health:health",
    "full-refresh": "flows.commands.full_refresh:full_refresh",
    "audit": "flows.commands.audit:audit",
    "compare": "flows.commands.compare:compare",
    "scd2-repair": "flows.commands.scd2_repair:scd2_repair",
    "payroll": "flows.commands.payroll:payroll",
    "triage": "flows.commands.triage:triage",
    "pipeline-failure": "flows.commands.pipeline_failure:pipeline_failure",
    "report": "flows.commands.report:report",
    "ingest-git": "flows.commands.ingest_git:ingest_git",
    "sample-data": "flows.commands.sample_data:sample_data",
    # Schedules stand above the flows that they run, and so does what serves them.
    "serve": "deployments.serve:serve",
    "drop-schema": "flows.commands.drop_schema:drop_schema",
    "alerts": "flows.commands.alerts:alerts",
}


class _Commands(EntryGroup):
    """The commands of the table above; a dbt command that failed is shown node by node."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        return getattr(import_module(module), name)

    def tell(self, error: TributaryError, as_json: bool) -> None:
        from flows.engine.results import DbtResult
        from flows.report import as_document

        result = error.result if isinstance(error, DbtRunFailed) else None
        if as_json:
            steps = [result] if isinstance(result, DbtResult) else []
            echo(dumps({**as_document(steps), "error": str(error), "kind": type(error).__name__}))
            return
        if isinstance(result, DbtResult) and result.nodes:
            from flows.terminal import print_log_path, print_result

            print_result(screen(), result)
            print_log_path(screen(), result)
        super().tell(error, as_json)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def main() -> None:
    """Run dbt on Prefect: build and test a project on one of your environments."""


if __name__ == "__main__":
    main(prog_name="python -m flows")
