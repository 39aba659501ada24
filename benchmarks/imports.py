"""Measure what the clients of the warehouses cost to import: `python -m benchmarks.imports`.

With all of them: `uv run --isolated --extra postgres --extra snowflake --extra bigquery python -m benchmarks.imports`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from importlib.util import find_spec

import click

from infrastructure.console import EntryCommand

# What a flow run on DuckDB imports, and what its dbt child does.
FLOW = "import flows.pipelines.full, duckdb"
CHILD = "import dbt.cli.main, dbt.adapters.duckdb"


@click.command(cls=EntryCommand)
@click.option("--rounds", default=5, show_default=True, help="Fresh processes for each row; the median is shown.")
def imports(rounds: int) -> None:
    """Import the DuckDB path in fresh processes, alone and with the client of each other warehouse, and print the cost.

    Processor seconds, not wall-clock, so that a busy machine changes little. The first process of each row, which
    compiles and fills the page cache, does not count.
    """
    click.echo(f"{'what is imported':<44}{'processor seconds':>18}")
    for label, code in [("the flow, DuckDB", FLOW), ("its dbt child, DuckDB", CHILD)]:
        click.echo(f"{label:<44}{processor_seconds(code, rounds):>18.2f}")
        for warehouse in ("postgres", "snowflake", "bigquery"):
            if find_spec(f"dbt.adapters.{warehouse}") is None:
                click.echo(f"{f'  with dbt-{warehouse}':<44}{'not installed':>18}")
                continue
            seconds = processor_seconds(f"{code}, dbt.adapters.{warehouse}", rounds)
            click.echo(f"{f'  with dbt-{warehouse}':<44}{seconds:>18.2f}")


def processor_seconds(code: str, rounds: int) -> float:
    """Return the processor seconds of a fresh Python that runs a line of code: the median after a first try."""
    return statistics.median([_once(code) for _ in range(rounds + 1)][1:])


def _once(code: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    imports()
