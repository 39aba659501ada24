"""`tributary full-refresh`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import click

from flows.cli.options import examples, project_option, target_option
from infrastructure.console import dumps, json_option, quiet_prefect, say
from infrastructure.screen import echo, screen

if TYPE_CHECKING:
    from flows.runbook.full_refresh.flow import RefreshReport


@click.command(
    "full-refresh",
    epilog=examples(
        "tributary full-refresh --target prod --dry-run",
        "tributary full-refresh --target prod",
        "tributary full-refresh --target prod --recover",
    ),
)
@target_option
@click.option(
    "--backup",
    "select",
    multiple=True,
    metavar="NODES",
    help="The tables to keep, such as tag:gold; default: those of the settings.",
)
@project_option
@click.option("--settings", metavar="FILE", help="Settings to use in place of flows/runbook/full_refresh/refresh.yml.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@click.option("--recover", is_flag=True, help="Only restore the tables after a refresh that was killed.")
@click.option("--docs/--no-docs", default=True, help="Generate the documentation site, and keep it.")
@click.option("--wait/--no-wait", default=True, help="Wait while another run writes to the target.")
@json_option
def full_refresh(select: tuple[str, ...], as_json: bool, **asked: Any) -> None:  # noqa: ANN401  (the flow's parameters)
    """Rebuild everything; restore the old tables if anything fails, with exit code 1."""
    quiet_prefect()
    report = _run(select=" ".join(select) or None, **asked)
    if as_json:
        echo(dumps(_document(report)))
    else:
        _print(report)


def _run(**arguments: Any) -> RefreshReport:  # noqa: ANN401  (the flow's own parameters)

    from flows.engine.context.reporting import reporting_to
    from flows.report.terminal import TerminalReporter
    from flows.runbook.full_refresh.flow import weekly_full_refresh
    from infrastructure.server.local_server import prefect_server
    from infrastructure.setup_profiles import ensure_target

    with (
        TerminalReporter(screen(stderr=True)) as reporter,
        reporting_to(reporter),
        prefect_server(say, targets=[arguments["target"]]),
    ):
        for sentence in ensure_target(arguments["target"]):
            say(sentence)
        return cast("RefreshReport", weekly_full_refresh(**arguments))


def _print(report: RefreshReport) -> None:
    from rich.table import Table

    from flows.runbook.full_refresh.flow import table_rows

    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        # On a terminal, each step was printed when it was done.
        echo("\n".join(report.steps))
    rows = table_rows(report.differences)
    if rows:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*row.values())
        screen().print(table)
    if report.keep_until:
        echo(f"The old tables are kept until {report.keep_until:%Y-%m-%d %H:%M} UTC.")


def _document(report: RefreshReport) -> dict[str, Any]:
    from flows.runbook.full_refresh.flow import table_rows

    return {
        "target": report.target,
        "refresh_id": report.refresh_id,
        "steps": report.steps,
        "nodes": report.build.counts() if report.build else None,
        "differences": table_rows(report.differences),
        "docs": report.docs,
        "keep_until": report.keep_until,
    }
