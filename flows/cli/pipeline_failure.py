"""`tributary pipeline-failure`."""

from __future__ import annotations

import sys

import click

from flows.cli.options import examples, project_option, target_option
from flows.cli.target import set_up
from infrastructure.console import dumps, json_option
from infrastructure.errors import ExitCode
from infrastructure.plain_text import count_of
from infrastructure.screen import echo


@click.command(
    "pipeline-failure",
    epilog=examples(
        "tributary pipeline-failure --target prod",
        "tributary pipeline-failure --target prod --restart",
        "tributary pipeline-failure --target prod --restart --yes",
    ),
)
@target_option
@project_option
@click.option("--restart", is_flag=True, help="Start the failed syncs after a confirmation, wait for them, then build.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--deadline-minutes", type=float, default=60.0, show_default=True, help="How long to wait for a sync.")
@json_option
def pipeline_failure(
    target: str, project_dir: str | None, restart: bool, yes: bool, deadline_minutes: float, as_json: bool
) -> None:
    """Find why no new data arrives: check Airbyte, the source database and stale sources; sync and build on request."""
    if yes and not restart:
        raise click.UsageError("--yes goes with --restart.")
    with set_up(target):
        from flows.runbook.pipeline_failure.flow import lines_of
        from flows.runbook.pipeline_failure.flow import pipeline_failure as look

        found = look(target, project_dir, "yes" if yes else "no", deadline_minutes)
        if restart and not yes and not found.is_well:
            _say(lines_of(found))
            if click.confirm("Start the syncs in Airbyte again?", err=True):
                found = look(target, project_dir, "yes", deadline_minutes)
    if as_json:
        echo(dumps(found))
    else:
        _say(lines_of(found) or ["All loaders are healthy, and no source is stale."])
        for connection, job in found.restarted.items():
            echo(f"Synced again: {connection}, job {job.job_id}.")
        if found.build:
            echo(f"Built again: {count_of(len(found.build.nodes), 'node')}.")
    if not found.is_well:
        sys.exit(ExitCode.FAILED)


def _say(lines: list[str]) -> None:
    for line in lines:
        echo(f"- {line}")
