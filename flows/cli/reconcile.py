"""`tributary reconcile`."""

from __future__ import annotations

import click

from flows.cli.options import examples, project_option, target_option
from flows.cli.target import set_up
from infrastructure.console import dumps, json_option
from infrastructure.plain_text import count_of
from infrastructure.screen import echo


@click.command(
    epilog=examples(
        "tributary reconcile --target prod",
        "tributary reconcile --target prod --deployment dbt-transformation-flow/prod --lookback-hours 48",
    )
)
@target_option
@click.option(
    "--deployment",
    metavar="FLOW/NAME",
    help="The deployment of dbt-transformation-flow to start; default: dbt-transformation-flow/production.",
)
@click.option(
    "--lookback-hours", type=float, default=24.0, show_default=True, help="Ignore syncs that ended longer ago."
)
@click.option(
    "--grace-minutes",
    type=float,
    default=5.0,
    show_default=True,
    help="Ignore newer syncs: the webhook starts their runs.",
)
@project_option
@json_option
def reconcile(
    target: str,
    deployment: str | None,
    lookback_hours: float,
    grace_minutes: float,
    project_dir: str | None,
    as_json: bool,
) -> None:
    """Start runs for finished Airbyte syncs that no webhook announced, and alert on unhealthy connections."""
    with set_up(target):
        from flows.pipelines.reconcile import reconcile_airbyte
        from flows.services.airbyte.sync_events import DEPLOYMENT

        done = reconcile_airbyte(target, deployment or DEPLOYMENT, lookback_hours, grace_minutes, project_dir)
    if as_json:
        connections = {health.connection_id: health.state for health in done.connections}
        missed = [{"connection_id": sync.connection_id, "job_id": sync.job_id} for sync in done.missed]
        document = {"target": target, "connections": connections, "missed": missed, "flow_run_id": done.flow_run_id}
        echo(dumps(document))
        return
    for health in done.connections:
        sources = ", ".join(health.sources)
        echo(f"{health.state:<9}  {health.connection_id}  {health.name or '?':<24}  {sources}")
    if done.flow_run_id:
        echo(f"Started flow run {done.flow_run_id} for {count_of(len(done.missed), 'sync')} that had no run.")
    else:
        echo("Every finished sync has its run.")
