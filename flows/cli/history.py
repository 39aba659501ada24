"""`tributary history`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from flows.cli.options import examples
from infrastructure.commands import program
from infrastructure.console import answer_in_json, dumps, say, say_aside
from infrastructure.plain_text import count_of
from infrastructure.screen import echo

if TYPE_CHECKING:
    from flows.history.query import QueryResult
    from flows.history.store import HistoryStore


@click.command(
    epilog=examples(
        "tributary history",
        "tributary history \"from runs where run_outcome = 'failed' order by run_started_at\"",
        'tributary history "select name, median(seconds) from nodes group by 1 order by 2 desc" --format csv',
        "tributary history --compact --keep-days 400",
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
    say(f"{store.url}: {count_of(done.found, 'file')} found, {done.made} merged files written, {done.removed} removed.")


def _explain(store: HistoryStore) -> None:
    from flows.history.query import EXAMPLES, column_names

    echo(f"The history is at {store.url} ({count_of(len(store.files()), 'file')}).")
    for view, columns in column_names(store).items():
        echo(f"\n{view}\n" + click.wrap_text(", ".join(columns), 100, "  ", "  "))
    echo("\nExamples")
    for purpose, query in EXAMPLES.items():
        echo(f'  {purpose}:\n    {program()} history "{query}"')


def _print(answer: QueryResult, form: str) -> None:
    from flows.report.rows_table import print_rows, width_of_stdout

    if form == "json":
        echo(dumps(answer.documents()))
    elif form == "csv":
        echo(answer.csv_text(), nl=False)
    else:
        print_rows(answer.columns, answer.rows, width_of_stdout())
        say_aside(f"\n{count_of(len(answer.rows), 'row')}")
