"""`tributary alerts`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, cast

import click

from flows.cli.options import examples, target_option
from infrastructure.console import dumps, json_option, quiet_prefect, say
from infrastructure.errors import ExitCode
from infrastructure.plain_text import count_of
from infrastructure.screen import echo, screen

if TYPE_CHECKING:
    from flows.alerts.incident import OpenIncident, Severity
    from flows.alerts.incident_store import Entries
    from flows.alerts.routes import Routes

_SEVERITIES = click.Choice(["critical", "error", "warning", "info"])


@click.group(epilog=examples("tributary alerts show", "tributary alerts test --target prod"))
def alerts() -> None:
    """Show open incidents and who was told, acknowledge or close them, and test the alerts."""


@alerts.command(epilog=examples("tributary alerts show", "tributary alerts show --target prod --json"))
@target_option
@json_option
def show(target: str, as_json: bool) -> None:
    """Show the open incidents of a target, who was told about them, and where alerts go."""
    from flows.alerts.incident_store import store_of
    from flows.alerts.routes import load_routes

    quiet_prefect()
    routes = load_routes()
    entries = store_of(target, os.environ).read()
    blocks = _blocks(routes)
    if as_json:
        echo(dumps(_document(target, routes, entries, blocks)))
    else:
        _print(target, routes, entries, blocks)


@alerts.command(epilog=examples("tributary alerts test --target prod", "tributary alerts test --severity critical"))
@target_option
@click.option(
    "--severity", type=_SEVERITIES, default="error", show_default=True, help="The severity of the test message."
)
@click.option("--owner", "owners", multiple=True, help="An owner of the test message; may be given several times.")
@click.option("--tag", "tags", multiple=True, help="A tag of the test message; may be given several times.")
@json_option
def test(target: str, severity: str, owners: tuple[str, ...], tags: tuple[str, ...], as_json: bool) -> None:
    """Send a test message along the routes; a page is resolved at once."""
    from flows.alerts.routes import load_routes
    from flows.alerts.test_message import send_trial, trial_incident
    from infrastructure.server.local_server import prefect_server

    quiet_prefect()
    routes = load_routes()
    incident = trial_incident(target, cast("Severity", severity), owners, tags)
    with prefect_server(say):
        trials = send_trial(incident, routes)
    if as_json:
        echo(dumps({"target": target, "destinations": [{"name": t.destination, "error": t.error} for t in trials]}))
    elif not trials:
        echo(f"No route matches severity {severity} on {target}. Add one to flows/alerts/routes.yml.")
    for trial in [] if as_json else trials:
        echo(f"{trial.destination}: {'sent' if trial.error is None else f'not sent, {trial.error}'}")
    if any(trial.error for trial in trials):
        sys.exit(ExitCode.FAILED)


@alerts.command(epilog=examples("tributary alerts send --target prod"))
@target_option
def send(target: str) -> None:
    """Send the alerts that could not be sent, without waiting for the next run."""
    from flows.alerts.notify import deliver
    from infrastructure.server.local_server import prefect_server

    quiet_prefect()
    with prefect_server(say):
        unsent = deliver(target)
    if unsent:
        sys.exit(ExitCode.FAILED)
    echo(f"All alerts of {target} are sent.")


@alerts.command(
    epilog=examples(
        "tributary alerts acknowledge --all --target prod --who 'Ada Lovelace'",
        "tributary alerts acknowledge dbt/model.tributary.fct_commits --target prod",
    )
)
@click.argument("keys", nargs=-1)
@target_option
@click.option("--all", "everything", is_flag=True, help="Acknowledge every open incident of the target.")
@click.option("--who", help="Who looks after it; default: your login name.")
def acknowledge(keys: tuple[str, ...], target: str, everything: bool, who: str | None) -> None:
    """Acknowledge incidents: you look after them, and their escalation clock stops."""
    import getpass

    from flows.alerts.escalation import TAG
    from flows.alerts.escalation import acknowledge as write_down
    from flows.alerts.incident_store import store_of
    from infrastructure.errors import ConfigError
    from infrastructure.server.local_server import prefect_server
    from infrastructure.yaml_file import meant

    if bool(keys) == everything:
        raise click.UsageError("Give either keys of incidents, as `alerts show` prints them, or --all.")
    quiet_prefect()
    known = store_of(target, os.environ).read().incidents
    open_ = [key for key, entry in known.items() if entry.closed_at is None and not key.startswith(f"{TAG}/")]
    if unknown := [key for key in keys if key not in open_]:
        raise ConfigError(f"No incident {unknown[0]!r} is open on target {target}{meant(unknown[0], open_)}.")
    with prefect_server(say):
        done = write_down(keys or open_, target, who or getpass.getuser())
    echo(f"{count_of(len(done), 'incident')} of {target} acknowledged.")


@alerts.command(epilog=examples("tributary alerts close dbt/model.tributary.fct_commits --target prod"))
@click.argument("key")
@target_option
def close(key: str, target: str) -> None:
    """Close an incident that no run will close, such as one of a deleted flow."""
    from flows.alerts.incident_store import store_of
    from flows.alerts.notify import close_incident
    from infrastructure.errors import ConfigError
    from infrastructure.server.local_server import prefect_server
    from infrastructure.yaml_file import meant

    quiet_prefect()
    known = store_of(target, os.environ).read().incidents
    if key not in known:
        raise ConfigError(f"There is no incident {key!r} on target {target}{meant(key, list(known))}.")
    with prefect_server(say):
        close_incident(key, target)
    echo(f"Closed {key}.")


def _blocks(routes: Routes) -> dict[str, str]:
    """Return for each destination what is wrong with its block; empty where nothing is."""
    from flows.alerts.addresses import read_address
    from flows.alerts.send.delivery import NotSentError
    from infrastructure.server.local_server import prefect_server

    found: dict[str, str] = {}
    with prefect_server(say):
        for name, destination in routes.destinations.items():
            try:
                read_address(destination)
                found[name] = ""
            except NotSentError as exc:
                found[name] = str(exc)
    return found


def _document(target: str, routes: Routes, entries: Entries, blocks: dict[str, str]) -> dict[str, Any]:
    return {
        "target": target,
        "destinations": [
            {"name": name, "block": "/".join(destination.block), "error": blocks[name] or None}
            for name, destination in routes.destinations.items()
        ],
        "incidents": [
            {
                **entry.incident.as_document(),
                "opened_at": entry.opened_at,
                "closed_at": entry.closed_at,
                "told": list(entry.told),
                "owed": _owed(entry, routes),
            }
            for entry in entries.incidents.values()
        ],
    }


def _print(target: str, routes: Routes, entries: Entries, blocks: dict[str, str]) -> None:
    from rich.table import Table

    console = screen(width=None if sys.stdout.isatty() else 240)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for title in ("destination", "block", "set up"):
        table.add_column(title, overflow="fold")
    for name, destination in routes.destinations.items():
        table.add_row(name, "/".join(destination.block), blocks[name] or "yes")
    console.print(table)
    found = list(entries.incidents.values())
    if not found:
        console.print(f"\nNo incident is open on {target}.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for title in ("since", "severity", "what", "whose", "told", "key"):
        table.add_column(title, overflow="fold")
    for entry in found:
        incident = entry.incident
        owed = _owed(entry, routes)
        told = ", ".join([*entry.told, *(f"{name}: not yet" for name in owed)]) or "no route matches"
        what = incident.title if entry.closed_at is None else f"over: {incident.title}"
        table.add_row(
            entry.opened_at[:16].replace("T", " "),
            incident.severity,
            what,
            ", ".join(incident.owners),
            told,
            incident.key,
        )
    console.print()
    console.print(table)


def _owed(entry: OpenIncident, routes: Routes) -> list[str]:
    """Return the destinations to which an incident has not been sent yet."""
    if entry.closed_at is not None:
        return []
    return [name for name in routes.destinations_of(entry.incident) if name not in entry.told]
