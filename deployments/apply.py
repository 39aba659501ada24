"""Deploy schedules.yml to a Prefect server: `python -m deployments.apply plan | apply | destroy | next`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infrastructure.commands import command, program
from infrastructure.console import EntryGroup, json_option, quiet_prefect, say_aside, silent
from infrastructure.errors import ConfigError
from infrastructure.plain_text import count_of
from infrastructure.plan import Change, Plan, line
from infrastructure.screen import echo, styled
from infrastructure.workspace import shown, workspace

if TYPE_CHECKING:
    from deployments.schedules.plan import Saved

_EPILOG = """\b
Examples:
  tributary deploy plan
      show what would change on the server, field by field, and change nothing
  tributary deploy plan --exit-code
      for CI: exit code 3 when there is something to change
  tributary deploy apply --prune
      make the changes, and remove deployments that the file no longer has
  tributary deploy next --after 2026-03-28 --count 3
      when everything runs next, here across a change of the clock

The server, of one's own or Prefect Cloud, is named by PREFECT_API_URL and PREFECT_API_KEY, or by the Prefect profile
in use.
"""

_target = click.option("--target", "-t", metavar="T", help="Only the deployments of this target.")
_prune = click.option("--prune", is_flag=True, help="Remove deployments of this file that it no longer has.")
_file = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Read this file in place of the workspace's schedules.yml.",
)


@click.group(
    cls=EntryGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
def main() -> None:
    """Plan and apply what runs where and when."""
    quiet_prefect()


@main.command()
@_target
@_prune
@click.option("--exit-code", is_flag=True, help="Exit with 3 when there is something to change.")
@json_option
@_file
def plan(target: str | None, prune: bool, exit_code: bool, as_json: bool, path: Path | None) -> None:
    """Show what apply would change, field by field, and change nothing."""
    planned = _reconcile(path, target, prune, as_json, apply_it=False)
    if exit_code:
        sys.exit(planned.exit_code)


@main.command()
@_target
@_prune
@json_option
@_file
def apply(target: str | None, prune: bool, as_json: bool, path: Path | None) -> None:
    """Show the changes and apply them; a second run changes nothing."""
    _reconcile(path, target, prune, as_json, apply_it=True)


@main.command()
@_target
@click.option("--yes", is_flag=True, help="Remove without a confirmation.")
@json_option
@_file
def destroy(target: str | None, yes: bool, as_json: bool, path: Path | None) -> None:
    """Remove every deployment of this file from the server; work pools and the history of runs stay."""
    from deployments.schedules.prefect_deployments import destroy as destroy_deployments
    from deployments.schedules.prefect_deployments import read_saved
    from deployments.schedules.schedule_file import load_schedules
    from infrastructure.server.client import connect
    from infrastructure.server.local_server import server_in_reach

    schedules, _ = load_schedules(path)
    report = silent if as_json else say_aside
    with server_in_reach(report), connect(report) as server:
        found = [it for it in read_saved(server, schedules.marker) if target is None or it.target == target]
        found.sort(key=lambda it: it.full_name)
        if found and not yes:
            _confirm(found, as_json)
        destroy_deployments(server, schedules, found)
    names = [deployment.full_name for deployment in found]
    if as_json:
        echo(json.dumps({"removed": names}, indent=2))
        return
    for name in names:
        echo(line(Change(name, "remove"), is_done=True))
    removed = f"{count_of(len(names), 'deployment')} removed."
    echo(removed if names else f"No deployment has the tag {schedules.marker}.")


def _confirm(found: Sequence[Saved], as_json: bool) -> None:
    if as_json:
        raise ConfigError("With --json there is no confirmation: give --yes as well.")
    for deployment in found:
        echo(line(Change(deployment.full_name, "remove")))
    click.confirm(f"Remove {count_of(len(found), 'deployment')} and their scheduled runs?", abort=True)


@main.command("next")
@_target
@click.option(
    "--count",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="How many runs to show of each deployment.",
)
@click.option(
    "--after",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
    metavar="TIME",
    help="Show runs after this moment, in UTC; default: now.",
)
@json_option
@_file
def next_(target: str | None, count: int, after: datetime | None, as_json: bool, path: Path | None) -> None:
    """Show when everything runs next, on its own clock and in UTC; needs no server."""
    from deployments.schedules.schedule_file import load_schedules

    moment = after.replace(tzinfo=UTC) if after else datetime.now(UTC)
    _, declared = load_schedules(path)
    chosen = [it for it in declared if target is None or it.target == target]
    runs = [(it, it.next_runs(moment, count)) for it in chosen if it.cron]
    if as_json:
        document = [
            {"deployment": it.full_name, "cron": it.cron, "time_zone": it.time_zone, "paused": it.paused,
             "runs": [at.isoformat() for at in times]}
            for it, times in runs
        ]  # fmt: skip
        echo(json.dumps(document, indent=2))
        return
    for it, times in runs:
        echo(f"{styled(it.full_name, bold=True)}  {it.cron} ({it.time_zone}){', paused' * it.paused}")
        for at in times:
            echo(f"  {at:%a %Y-%m-%d %H:%M %Z}  =  {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC")
    if still := [it.full_name for it in chosen if not it.cron]:
        echo(f"Without a schedule: {', '.join(still)}")


def _reconcile(path: Path | None, target: str | None, prune: bool, as_json: bool, apply_it: bool) -> Plan:
    from deployments.schedules.prefect_deployments import apply as apply_plan
    from deployments.schedules.prefect_deployments import plan as make_plan
    from deployments.schedules.schedule_file import load_schedules
    from infrastructure.server.client import api_address, connect
    from infrastructure.server.local_server import server_in_reach

    schedules, declared = load_schedules(path)
    report: Callable[[str], None] = silent if as_json else say_aside
    with server_in_reach(report), connect(report) as server:
        address = api_address()
        planned = make_plan(server, schedules, declared, prune=prune, target=target)
        if not as_json:
            echo(_as_text(planned, address, path))
        if apply_it:
            apply_plan(server, schedules, planned)
    if as_json:
        echo(json.dumps(_as_document(planned, address, is_applied=apply_it), indent=2))
        return planned
    given = [
        *(["--file", shlex.quote(str(path))] if path else []),
        *(["--target", target] if target else []),
        *(["--prune"] if prune else []),
    ]
    echo(_summary(planned, command(" ".join(["deploy apply", *given])), apply_it, path or workspace().schedules))
    return planned


def example_note(planned: Plan, path: Path | None) -> list[str]:
    """Say whose deployments these are, as long as the server has none of them."""
    is_example = path is None and workspace().is_example
    if not is_example or any(change.action not in ("create", "left") for change in planned.changes):
        return []
    return [
        "These are the deployments of the example: its dbt project, its payroll, its Airbyte. "
        f"Your own: {program()} init ../your_project"
    ]


def _as_text(planned: Plan, address: str | None, path: Path | None) -> str:
    where = f"Prefect server: {address or 'this machine'}"
    notes = [styled(note, fg="yellow") for note in (*planned.notes, *example_note(planned, path))]
    return "\n".join([where, *planned.lines(), *planned.unchanged_line(), *notes])


def _summary(planned: Plan, command: str, is_applied: bool, file: Path) -> str:
    from deployments.schedules.plan import PoolChange

    if planned.is_empty:
        return f"Nothing to change: the server is as in {shown(file)}."
    if not is_applied:
        return f"Nothing has been changed yet. To make these changes: {command}"
    workers = [f"  uv run prefect worker start --pool {pool.name}" for pool in planned.only(PoolChange)]
    return "\n".join([f"Done: {planned.done()}.", "To run them, start a worker:", *workers])


def _as_document(planned: Plan, address: str | None, is_applied: bool) -> dict[str, Any]:
    from deployments.schedules.plan import DeploymentChange, LateChange, PoolChange
    from infrastructure.server.automations import AutomationChange, is_of_resumes

    automations = planned.only(AutomationChange)
    return {
        "server": address,
        "work_pools": [it.as_document() for it in planned.only(PoolChange)],
        "deployments": [it.as_document() for it in planned.only(DeploymentChange)],
        "late_alerts": [it.as_document("deployment") for it in planned.only(LateChange)],
        "event_automations": [it.as_document() for it in automations if not is_of_resumes(it.name)],
        "resume_automations": [it.as_document() for it in automations if is_of_resumes(it.name)],
        "notes": list(planned.notes),
        "has_changes": not planned.is_empty,
        "is_applied": is_applied,
    }


if __name__ == "__main__":
    main(prog_name="python -m deployments.apply")
