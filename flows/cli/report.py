"""`tributary report`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from flows.cli.options import examples, project_option, target_option
from infrastructure.screen import echo


@click.command(
    epilog=examples(
        "tributary report",
        "tributary report --target prod --output prod.html --days 90",
        "tributary report --target prod --price-per-tebibyte 6.25",
    )
)
@target_option
@project_option
@click.option("--output", "-o", metavar="FILE", help="The HTML file; default: in the state folder.")
@click.option(
    "--days", type=click.IntRange(1), default=30, show_default=True, help="How many days back durations count."
)
@click.option("--price-per-tebibyte", type=float, metavar="AMOUNT", help="BigQuery's price, to show costs as money.")
def report(
    target: str, project_dir: str | None, output: str | None, days: int, price_per_tebibyte: float | None
) -> None:
    """Write a report of status, runs, tests, sources and costs as one HTML file that needs no network."""
    from flows.engine.changed.last_success import latest_folder
    from flows.engine.context.project import read_project
    from flows.engine.context.state import state_of, state_root
    from flows.history.store import history_store
    from flows.report.html.page import write_report

    state = state_of(read_project(project_dir), target, os.environ)
    project, last_good = state.project, latest_folder(state)
    path = Path(output) if output else state_root(os.environ) / f"report-{project}-{target}.html"
    artifacts = [state.target_path, *([last_good] if last_good else [])]
    contents = write_report(history_store(os.environ), project, target, path, days, price_per_tebibyte, artifacts)
    echo(f"{project} on {target}: {contents.status}. Open {path.absolute()}")
