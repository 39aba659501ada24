"""The command line of the receiver: `python -m deployments.webhook serve | events | cloud | openapi`."""

from __future__ import annotations

import json
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

import click

from infrastructure.console import EntryGroup
from infrastructure.errors import ExitCode
from infrastructure.plain_text import count_of
from infrastructure.screen import echo

_project = click.option(
    "--project-dir", metavar="FOLDER", help="The dbt project whose sources name Airbyte connections."
)
_target = click.option("--target", "-t", help="The target that the runs build; default: prod.")
_deployment = click.option("--deployment", metavar="FLOW/NAME", help="The deployment that a finished sync starts.")


@click.group(cls=EntryGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Receive Airbyte's notifications of finished syncs, and start one run per sync.

    Every option can also be set by a variable TRIBUTARY_WEBHOOK_<NAME>; docs/webhook.md lists them.
    """


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8085, show_default=True, help="Port to listen on.")
@click.option("--window-seconds", type=float, help="How long a sync waits for others, to share a run with them.")
@_target
@_deployment
@_project
def serve(host: str, port: int, **given: Any) -> None:  # noqa: ANN401
    """Receive deliveries until stopped by Ctrl-C or SIGTERM."""
    from deployments.webhook.receive.app import shows_secret
    from deployments.webhook.receive.server import Bounds, log_to_console, server_of
    from deployments.webhook.receive.settings import load_settings
    from deployments.webhook.receiver import Receiver
    from deployments.webhook.start.prefect_api import prefect_address

    settings = load_settings(**given)
    log_to_console()
    receiver = Receiver(settings, prefect_address())
    bounds = Bounds(settings.read_seconds, settings.max_connections, settings.max_per_peer)
    server = server_of(receiver.app(), host, port, bounds, lambda head: shows_secret(receiver.desk, head))
    echo(f"Receiving on http://{host}:{port}; runs of {settings.deployment} build {settings.target}.", err=True)
    # Ctrl-C ends it; where it can't listen, it logs why and ends the process with uvicorn's exit code.
    with suppress(KeyboardInterrupt, SystemExit):
        server.run()
    if not server.started:
        sys.exit(ExitCode.USAGE)


@main.command()
@click.option("--open", "only_open", is_flag=True, help="Only deliveries that are not processed yet.")
@click.option("--limit", default=50, show_default=True, help="How many of the newest deliveries.")
def events(only_open: bool, limit: int) -> None:
    """List deliveries and their outcomes."""
    from deployments.webhook.inbox.spool import Spool
    from deployments.webhook.receive.settings import load_settings

    with closing(Spool(load_settings().spool)) as spool:
        found = spool.events(only_open, limit)
    for event in found:
        said = "succeeded" if event.delivery.succeeded else "failed"
        at = datetime.fromtimestamp(event.received_at, UTC)
        became = event.outcome or f"waits ({event.state}, {event.attempts} attempts)"
        run = f" {event.flow_run_id}" if event.flow_run_id else ""
        echo(
            f"{at:%Y-%m-%d %H:%M:%SZ}  {event.delivery.connection_id}  job {event.delivery.job_id or '?'}  "
            f"{said}: {became}{run}"
        )
    echo(count_of(len(found), "event"), err=True)


@main.command()
def openapi() -> None:
    """Print the description of the receiver's API."""
    from deployments.webhook.receive.openapi import description
    from deployments.webhook.receive.settings import load_settings

    echo(json.dumps(description(load_settings().max_body_bytes), indent=2))


@main.command()
@_target
@_deployment
@_project
def cloud(**given: Any) -> None:  # noqa: ANN401
    """Print the JSON of a webhook and automations that replace the receiver on Prefect Cloud.

    The deployment's id is read from the Prefect server in use.
    """
    from asyncio import run
    from os import environ

    from deployments.webhook.receive.settings import load_settings
    from deployments.webhook.start.prefect_api import deployment_id
    from deployments.webhook.start.prefect_cloud import cloud_documents
    from flows.services.airbyte.sync_events import connections_of

    settings = load_settings(**given)
    connections = connections_of(settings.project_dir, environ)
    documents = cloud_documents(connections, run(deployment_id(settings.deployment)), settings.target)
    echo(json.dumps(documents.as_document(), indent=2))


if __name__ == "__main__":
    main()
