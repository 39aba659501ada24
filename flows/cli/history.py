"""`python -m flows history`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import examples
from infrastructure.console import answer_in_json, dumps, say
from infrastructure.screen import echo, screen

if TYPE_CHECKING:
    from flows.history.query import QueryResult
    from flows.history.store import HistoryStore


@click.command(
    epilog=examples(
        "python -m flows history",
        "python -m flows history \"from runs where run_outcome = 'failed' order by run_started_at\"",
        'python -m flows history "select name, median(seconds) from nodes group by 1 order by 2 desc" --format csv',
        "python -m flows history --compact --keep-days 400",
    )
)
@click.argument("sql", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    callback=answer_in_json,
    show_default=True,
    help="How to print the answer.",
)
@click.option("--compact", is_flag=True, help="Merge the files of past days and delete what is too old.")
@click.option(
    "--keep-days",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="With --compact: delete runs that are older.",
)
def history(sql: str | None, form: str, compact: bool, keep_days: int) -> None:
    """Query the history of all runs with SQL: the views `runs` and `nodes`. Without SQL: show columns and examples."""
    from flows.history.query import ask
    from flows.history.store import history_store

    store = history_store(os.environ)
    if compact:
        _compact(store, keep_days)
    elif sql:
        _print(ask(store, sql), form)
    else:
        _explain(store)


def _compact(store: HistoryStore, keep_days: int) -> None:
    done = store.compact(keep_days)
    say(f"{store.url}: {done.found} files found, {done.made} merged files written, {done.removed} removed.")


def _explain(store: HistoryStore) -> None:
    from flows.history.query import EXAMPLES, column_names

    echo(f"The history is at {store.url} ({len(store.files())} files).")
    for view, columns in column_names(store).items():
        echo(f"\n{view}\n" + click.wrap_text(", ".join(columns), 100, "  ", "  "))
    echo("\nExamples")
    for purpose, query in EXAMPLES.items():
        echo(f'  {purpose}:\n    python -m flows history "{query}"')


def _print(answer: QueryResult, form: str) -> None:
    if form == "json":
        echo(dumps(answer.documents()))
    elif form == "csv":
        echo(answer.csv_text(), nl=False)
    else:
        _print_table(answer)


def _print_table(answer: QueryResult) -> None:
    from rich.table import Table

    # A pipe has no width: a broken line can be neither searched nor copied.
    console = screen(width=None if sys.stdout.isatty() else 240)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for number, column in enumerate(answer.columns):
        figures = all(isinstance(row[number], (int, float)) or row[number] is None for row in answer.rows)
        table.add_column(column, overflow="fold", justify="right" if figures else "left")
    for row in answer.rows:
        table.add_row(*(_cell(value) for value in row))
    console.print(table, highlight=False)
    console.print(f"\n{len(answer.rows)} rows", style="bright_black", highlight=False)


def _cell(value: Any) -> str:  # noqa: ANN401  (whatever a query gives)
    from datetime import datetime

    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
