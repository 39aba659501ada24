"""`tributary triage`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from flows.cli.options import examples, project_option, target_option
from flows.cli.target import set_up
from infrastructure.commands import command
from infrastructure.console import dumps, json_option
from infrastructure.errors import ExitCode
from infrastructure.screen import echo, screen, styled

if TYPE_CHECKING:
    from flows.runbook.triage.flow import Triage


@click.command(
    epilog=examples(
        "tributary triage --target prod",
        "tributary triage --target prod --who 'Ada Lovelace'",
        "tributary triage --limit 100 --keep-rows",
    )
)
@target_option
@project_option
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many rows to show of each test."
)
@click.option(
    "--keep-rows", is_flag=True, help="Keep the failing rows in the warehouse, in dbt's tables of stored failures."
)
@click.option("--who", default="", help="Acknowledge the incidents in this name, so that no escalation clock starts.")
@json_option
def triage(target: str, project_dir: str | None, limit: int, keep_rows: bool, who: str, as_json: bool) -> None:
    """Run the tests again that failed last, and show the rows they find and what changed upstream."""
    with set_up(target):
        from flows.runbook.triage.flow import triage as look_again

        found = look_again(target, project_dir, limit, keep_rows, who)
    if as_json:
        echo(dumps(found))
    else:
        _print(found)
    if found.failing:
        sys.exit(ExitCode.FAILED)


def _print(found: Triage) -> None:
    from rich.table import Table

    console = screen(width=None if sys.stdout.isatty() else 200)
    for each in found.failing:
        echo(styled(each.name, fg="red", bold=True) + (" (critical)" if each.is_critical else ""))
        echo(f"  {each.failures or 0:,} rows. {' '.join(each.message.split())}")
        if each.owners or each.affects:
            echo(f"  Owner: {', '.join(each.owners) or 'none'}. Affects: {', '.join(each.affects) or 'nothing'}.")
        passed = each.changes.passed_at
        since = f"since it passed at {passed[:16].replace('T', ' ')} UTC" if passed else "since it passed: unknown"
        echo(f"  Changed {since}")
        for change in each.changes.nodes:
            echo(f"    - {change}")
        if each.rows:
            table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
            for column in each.rows[0]:
                table.add_column(column, overflow="fold")
            for row in each.rows:
                table.add_row(*("null" if value is None else str(value) for value in row.values()))
            console.print(table)
        elif each.hidden:
            echo(f"  Rows: {each.hidden}")
        echo()
    if found.mended:
        echo(f"Passing again: {', '.join(found.mended)}.")
    if not found.failing:
        echo(f"No test fails on {found.target}.")
    elif found.clocks:
        echo(
            "The escalation clock is running. To acknowledge: "
            + command(f"alerts acknowledge --all --target {found.target}")
        )
