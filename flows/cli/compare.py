"""`tributary compare`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import click

from flows.cli.options import examples, project_option, select_option
from infrastructure.commands import command
from infrastructure.console import dumps, json_option, quiet_prefect, say
from infrastructure.errors import ExitCode
from infrastructure.plain_text import count_of
from infrastructure.screen import echo, screen

if TYPE_CHECKING:
    from flows.runbook.compare.flow import Comparison


@click.command(
    epilog=examples(
        "tributary compare --target dev --target prod",
        "tributary compare --target prod --save before.json",
        "tributary compare --target prod --before before.json",
    )
)
@click.option("--target", "-t", "targets", multiple=True, required=True, help="A target to compare; give one or two.")
@select_option
@project_option
@click.option("--before", metavar="FILE", help="Compare with what --save wrote earlier, in place of a second target.")
@click.option("--save", "save_to", metavar="FILE", help="Write the state of the first target to a file.")
@click.option("--freshness/--no-freshness", default=True, help="Compare the freshness of the sources, too.")
@json_option
def compare(
    targets: tuple[str, ...],
    select: tuple[str, ...],
    project_dir: str | None,
    before: str | None,
    save_to: str | None,
    freshness: bool,
    as_json: bool,
) -> None:
    """Compare rows, columns, keys, sums and configuration of two targets; exit code 1 when they differ."""
    # click ensures that there is one.
    first, *others = list(targets)
    if len(others) > 1:
        raise click.UsageError("At most two targets can be compared.")
    if first in others:
        raise click.UsageError(
            f"Target {first} is named twice. Compare it with an earlier state of itself: --before FILE."
        )
    if before and others:
        raise click.UsageError("Give either a second target or --before FILE.")
    quiet_prefect()
    chosen = {
        "target": first,
        "other": others[0] if others else None,
        "select": " ".join(select) or None,
        "project_dir": project_dir,
        "before": before,
        "save_to": save_to,
        "freshness": freshness,
    }
    found = _run(chosen)
    is_saved_only = save_to is not None and before is None and not others
    if is_saved_only:
        tables = count_of(len(found.one.tables), "table")
        say(f"Saved the state of {first}: {tables}. Later: {command(f'compare --before {save_to}')}")
        return
    if as_json:
        from flows.runbook.compare.flow import as_document

        echo(dumps(as_document(found)))
    else:
        _print(found)
    if not found.is_equal:
        sys.exit(ExitCode.FAILED)


def _run(arguments: dict[str, Any]) -> Comparison:

    from flows.engine.context.reporting import reporting_to
    from flows.report.terminal import TerminalReporter
    from flows.runbook.compare.flow import compare_targets
    from infrastructure.server.local_server import prefect_server
    from infrastructure.setup_profiles import ensure_target

    named = [name for name in (arguments["target"], arguments["other"]) if name]
    with (
        TerminalReporter(screen(stderr=True)) as reporter,
        reporting_to(reporter),
        prefect_server(say, targets=named),
    ):
        for name in named:
            for sentence in ensure_target(name):
                say(sentence)
        return cast("Comparison", compare_targets(**arguments))


def _print(found: Comparison) -> None:
    from rich.table import Table

    from flows.runbook.compare.flow import table_rows

    rows = table_rows(found)
    if rows:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*row.values())
        screen().print(table)
    echo(found.sentence())
