"""`tributary scd2-repair`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import click

from flows.cli.options import examples, project_option, select_option, target_option
from infrastructure.console import dumps, json_option, quiet_prefect, say
from infrastructure.errors import ExitCode
from infrastructure.screen import echo, screen

if TYPE_CHECKING:
    from flows.runbook.scd2.flow import RepairReport


@click.command(
    "scd2-repair",
    epilog=examples(
        "tributary scd2-repair --target prod --dry-run",
        "tributary scd2-repair --target prod --select br_attendance_scd2",
        "tributary scd2-repair --target prod --undo 20260301T020000-ab12cd",
    ),
)
@target_option
@select_option
@project_option
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do it without a confirmation.")
@click.option("--undo", metavar="ID", help="Restore the rows that this repair changed.")
@click.option("--force", is_flag=True, help="With --undo: also restore rows that were changed again since.")
@json_option
def scd2_repair(
    select: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    undo: str | None,
    force: bool,
    as_json: bool,
    **asked: Any,  # noqa: ANN401  (the target and the project)
) -> None:
    """Repair keys with several current versions: keep the right one current; exit code 1 when some are left."""
    from infrastructure.server.local_server import prefect_server

    quiet_prefect()
    chosen: dict[str, Any] = {"select": " ".join(select) or None, **asked}
    with prefect_server(say, targets=[chosen["target"]]):
        if undo:
            report = _run(**chosen, mode="apply", undo=undo, force=force)
        elif yes and not dry_run:
            report = _run(**chosen, mode="apply")
        else:
            report = _run(**chosen, mode="show")
            if report.changes and not dry_run and not as_json and sys.stdin.isatty():
                _print(report)
                if click.confirm("Do this in one transaction?", err=True):
                    report = _run(**chosen, mode="apply", confirmed=report.digest)
    if as_json:
        echo(dumps(_document(report)))
    else:
        _print(report)
    if report.outcome == "shown":
        if not dry_run and not as_json:
            say("To do it, run the same command with --yes, or at a terminal, where it asks.")
        sys.exit(ExitCode.FAILED)


def _run(**arguments: Any) -> RepairReport:  # noqa: ANN401  (the flow's own parameters)

    from flows.engine.context.reporting import reporting_to
    from flows.report.terminal import TerminalReporter
    from flows.runbook.scd2.flow import scd2_repair as flow
    from infrastructure.setup_profiles import ensure_target

    with TerminalReporter(screen(stderr=True)) as reporter, reporting_to(reporter):
        for sentence in ensure_target(arguments["target"]):
            say(sentence)
        return cast("RepairReport", flow(**arguments))


def _print(report: RepairReport) -> None:
    from rich.table import Table

    from flows.runbook.scd2.repairs import table_rows

    rows = table_rows(report.changes)
    if rows and report.outcome in ("shown", "applied"):
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*map(str, row.values()))
        screen().print(table)
    echo(report.sentence())


def _document(report: RepairReport) -> dict[str, Any]:
    from flows.runbook.scd2.repairs import table_rows

    return {
        "target": report.target,
        "outcome": report.outcome,
        "keys": report.keys,
        "plan": report.digest,
        "repair_id": report.repair_id,
        "changes": table_rows(report.changes),
        "tests": report.tests.counts() if report.tests else None,
    }
