"""`tributary build`, and the same as `run`."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import examples, options_of, project_option, run_options, target_option
from flows.engine.context.reporting import reporting_to
from infrastructure.console import dumps, json_option, quiet_prefect
from infrastructure.screen import echo, screen

if TYPE_CHECKING:
    from flows.pipelines.local_run import Request


@click.command(
    epilog=examples(
        "tributary build",
        "tributary build --target prod --select tag:marts+",
        "tributary build --project-dir ../jaffle_shop --full-refresh",
        "tributary build --changed",
        "tributary build --target ci --defer-to prod",
        "tributary build --json | jq .counts",
    )
)
@target_option
@project_option
@run_options()
@click.option(
    "--data/--no-data",
    "with_data",
    default=None,
    help="Load this repository's commits and sample data first; by default on DuckDB, for the project in dbt/.",
)
@json_option
def build(
    target: str,
    project_dir: str | None,
    with_data: bool | None,
    as_json: bool,
    **asked: Any,  # noqa: ANN401  (what `run_options` adds)
) -> None:
    """Build and test a dbt project, with every node in the Prefect UI: seeds, snapshots, models and tests."""
    from flows.pipelines.local_run import Request

    request = Request(target, project_dir, with_data, options_of(asked))
    quiet_prefect()
    _run(request, as_json)


run = copy(build)
run.name = "run"
run.help = (
    "Build and test a dbt project, as `build` does: seeds, snapshots, models and tests.\n\n"
    "dbt's own `run`, which builds models and tests nothing, is `run --select resource_type:model "
    "--indirect-selection empty`."
)


def _run(request: Request, as_json: bool) -> None:

    from flows.pipelines.local_run import data_places, next_steps, run_locally
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
