"""`tributary transform`, `fast-transform` and `new-data`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import examples, full_refresh_option, project_option, target_option
from flows.cli.target import set_up
from infrastructure.console import dumps, json_option
from infrastructure.plain_text import count_of
from infrastructure.screen import echo, screen

if TYPE_CHECKING:
    from flows.engine.artifacts.results import DbtResult
    from flows.pipelines.transform import Transformation

_HELP = "A dbt source; may be given several times."


@click.command(
    epilog=examples(
        "tributary transform --source google_ads",
        "tributary transform --source google_ads --connection-id 7f4e3c52-8a8b-4e0a-9b0f-3f6c2d1e5a90 -t prod",
        "tributary transform --everything --target prod",
    )
)
@click.option("--source", "-S", "sources", multiple=True, metavar="NAME", help=_HELP)
@click.option("--everything", is_flag=True, help="All sources, as in the nightly refresh.")
@click.option(
    "--connection-id",
    metavar="UUID",
    help="An Airbyte connection whose newest sync must have succeeded; a running one is awaited.",
)
@full_refresh_option
@target_option
@project_option
@json_option
def transform(
    sources: tuple[str, ...],
    everything: bool,
    connection_id: str | None,
    full_refresh: bool,
    target: str,
    project_dir: str | None,
    as_json: bool,
) -> None:
    """Build and test what depends on a source.

    A critical test that fails stops what is downstream of the tested model. The other tests run after the build: one
    that fails is reported, and the run goes on.
    """
    if bool(sources) == everything:
        raise click.UsageError("Give either --source, once or several times, or --everything.")
    with set_up(target):
        from flows.pipelines.transform import dbt_transformation_flow, nightly_build

        if everything:
            done = nightly_build(target, full_refresh, project_dir)
        else:
            done = dbt_transformation_flow(list(sources), connection_id, full_refresh, target, None, project_dir)
    _print(done, as_json)


@click.command("fast-transform", epilog=examples("tributary fast-transform --source google_ads --target prod"))
@click.option("--source", "-S", "sources", multiple=True, required=True, metavar="NAME", help=_HELP)
@click.option("--cache-hours", type=float, default=6.0, show_default=True, help="How long the cache keeps it.")
@target_option
@project_option
@json_option
def fast_transform(
    sources: tuple[str, ...], cache_hours: float, target: str, project_dir: str | None, as_json: bool
) -> None:
    """Bring a source's new data to the dashboards first.

    Builds only what lies between the source and the models tagged dashboard, fills the dashboard cache, and runs the
    tests afterwards, in a separate run.
    """
    with set_up(target):
        from flows.pipelines import transform as flow

        done = flow.fast_transform(list(sources), target, project_dir, cache_hours)
    _print(done, as_json)


@click.command("new-data", epilog=examples("tributary new-data --target prod"))
@target_option
@project_option
@json_option
def new_data(target: str, project_dir: str | None, as_json: bool) -> None:
    """Build what depends on sources with newer data than last time; do nothing where there is none."""
    with set_up(target):
        from flows.pipelines.new_data import transform_new_data

        state: Any = transform_new_data(target, project_dir, return_state=True)
        done = state.result()
    if done.transformation is None:
        echo(dumps({"target": target, "newer": []}) if as_json else state.message)
        return
    _print(done.transformation, as_json)


def _print(done: Transformation, as_json: bool) -> None:

    from flows.report.artifacts import as_document
    from flows.report.terminal import print_log_path, print_result

    results: Sequence[DbtResult] = [result for result in (done.build, done.tests) if result]
    if as_json:
        syncs = {name: job.job_id for name, job in done.syncs.items()}
        about = {"target": done.target, "sources": done.sources, "syncs": syncs, "cached": dict(done.cached)}
        echo(dumps(about | as_document(results)))
        return
    console = screen()
    for job in done.syncs.values():
        console.print(f"Airbyte's sync {job.job_id} succeeded at {job.last_updated_at:%Y-%m-%d %H:%M} UTC.")
    for result in results:
        print_result(console, result)
        print_log_path(console, result)
    for model, rows in done.cached.items():
        console.print(f"In the dashboard cache: {count_of(rows, 'row')} of {model}.")
