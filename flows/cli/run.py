"""`python -m flows run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flows.cli.options import (
    changed_option,
    defer_to_option,
    examples,
    exclude_option,
    full_refresh_option,
    parse_vars,
    project_option,
    select_option,
    selector_option,
    target_option,
    vars_option,
)
from flows.engine.context.reporting import reporting_to
from infrastructure.console import dumps, json_option, quiet_prefect
from infrastructure.screen import echo, screen

if TYPE_CHECKING:
    from flows.pipelines.local_run import Request


@click.command(
    epilog=examples(
        "python -m flows run",
        "python -m flows run --target prod --select tag:marts+",
        "python -m flows run --project-dir ../jaffle_shop --full-refresh",
        "python -m flows run --changed",
        "python -m flows run --target ci --defer-to prod",
        "python -m flows run --json | jq .counts",
    )
)
@target_option
@select_option
@exclude_option
@selector_option
@full_refresh_option
@vars_option
@project_option
@click.option("--freshness/--no-freshness", default=True, help="Stop before building when a source is too old.")
@click.option("--docs", is_flag=True, help="Generate the documentation site at the end.")
@click.option("--resume", is_flag=True, help="Do only what the last run like this left undone.")
@changed_option
@defer_to_option
@click.option("--wait/--no-wait", default=True, help="Wait for a run that is writing to the target.")
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="How often a node is tried again that failed for a passing reason: a lost connection, a lock, a quota.",
)
@click.option(
    "--timeout-minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="MINUTES",
    help="Stop the run after so long; by default it may take as long as it takes.",
)
@click.option(
    "--data/--no-data",
    "with_data",
    default=None,
    help="Load this repository's commits and sample data first; by default on DuckDB, for the project in dbt/.",
)
@json_option
def run(
    target: str,
    select: tuple[str, ...],
    exclude: tuple[str, ...],
    selector: str | None,
    full_refresh: bool,
    variables: str | None,
    project_dir: str | None,
    freshness: bool,
    docs: bool,
    resume: bool,
    changed: bool,
    defer_to: str | None,
    wait: bool,
    retries: int,
    timeout_minutes: float | None,
    with_data: bool | None,
    as_json: bool,
) -> None:
    """Build and test a dbt project, with every node in the Prefect UI."""
    from flows.pipelines.local_run import Request

    request = Request(
        target=target,
        select=" ".join(select) or None,
        exclude=" ".join(exclude) or None,
        selector=selector,
        full_refresh=full_refresh,
        vars=parse_vars(variables),
        project_dir=project_dir,
        freshness=freshness,
        docs=docs,
        resume=resume,
        changed=changed,
        defer_to=defer_to,
        wait=wait,
        retries=retries,
        timeout_seconds=timeout_minutes * 60 if timeout_minutes else None,
        with_data=with_data,
    )
    quiet_prefect()
    _run(request, as_json)


def _run(request: Request, as_json: bool) -> None:

    from flows.pipelines.local_run import data_places, did_you_mean, next_steps, run_locally
    from flows.report.artifacts import as_document
    from flows.report.terminal import TerminalReporter, print_freshness, print_log_path, print_result

    with TerminalReporter(screen(stderr=True)) as reporter, reporting_to(reporter):
        outcome = run_locally(request)
    pipeline = outcome.pipeline
    if as_json:
        steps = [step for step in (pipeline.freshness, pipeline.build, pipeline.docs) if step]
        echo(dumps(as_document(steps)))
        return
    console = screen()
    if pipeline.freshness:
        print_freshness(console, pipeline.freshness)
    print_result(console, pipeline.build)
    if not pipeline.build.nodes and request.select and not request.changed:
        console.print(did_you_mean(request.select, pipeline.build), style="yellow")
    where, *schemas = data_places(outcome)
    tables = ", tables and views by schema:" if schemas else ""
    console.print(f"\nYour data is in {where}{tables}", highlight=False, soft_wrap=True)
    for schema in schemas:
        console.print(f"  {schema}", highlight=False)
    if pipeline.docs:
        page = pipeline.docs.target_path / "static_index.html"
        console.print(f"Documentation of every table: {page}", highlight=False, soft_wrap=True)
    print_log_path(console, pipeline.build)
    console.print("\nNext")
    steps = next_steps(outcome, request)
    width = max(len(purpose) for purpose, _ in steps)
    for purpose, command in steps:
        console.print(f"  {purpose:<{width}}  {command}", highlight=False, soft_wrap=True)
