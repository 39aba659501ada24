"""`python -m flows plan`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import (
    allow_nothing_option,
    changed_option,
    defer_to_option,
    examples,
    exclude_option,
    full_refresh_option,
    indirect_selection_option,
    options_of,
    project_option,
    select_option,
    selector_option,
    target_option,
    vars_option,
)
from flows.cli.target import profile_for_parsing
from infrastructure.console import dumps, json_option
from infrastructure.program import find_program
from infrastructure.screen import echo, screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.engine.artifacts.manifest import Manifest
    from flows.engine.context.command import DbtCommand
    from flows.engine.context.project import Project
    from flows.pipelines.plan import PlannedNode
    from infrastructure.profiles import Profile


@click.command(
    epilog=examples(
        "python -m flows plan",
        "python -m flows plan --select fct_musician_payment+",
        "python -m flows plan --changed",
        "python -m flows plan --json",
    )
)
@target_option
@select_option
@exclude_option
@selector_option
@full_refresh_option
@vars_option
@project_option
@changed_option
@defer_to_option
@indirect_selection_option
@allow_nothing_option
@json_option
def plan(
    target: str,
    project_dir: str | None,
    as_json: bool,
    **asked: Any,  # noqa: ANN401  (the options that it has in common with `run`)
) -> None:
    """Show what a run would do, in which order and why; nothing is executed."""
    from flows.engine.context.project import project_to_run
    from flows.engine.context.reporting import reporting_to
    from flows.report.terminal import TerminalReporter

    with TerminalReporter(screen(stderr=True)) as reporter, reporting_to(reporter):
        project = project_to_run(project_dir)
    options = options_of(asked)
    command = options.command("build")
    profile = profile_for_parsing(target)
    program = find_program(profile.dbt)
    planned, notes, manifest = (_changes if options.changed else _selected)(command, project, profile, options.defer_to)
    is_selected = command.select or command.exclude or command.selector
    if not planned and is_selected and not (options.allow_nothing or options.defer_to):
        from flows.engine.ledger.failures import nothing_matched

        raise nothing_matched(command, target, [node.name for node in manifest.nodes.values()])
    if as_json:
        from dataclasses import asdict

        echo(
            dumps(
                {"target": target, "nodes": [asdict(node) for node in planned], "notes": notes, "dbt": program.sentence}
            )
        )
    else:
        _print_plan(planned, target)
        for note in (*notes, f"It is for {program.sentence}."):
            echo(note)


def _selected(
    command: DbtCommand, project: Project, profile: Profile, defer_to: str | None
) -> tuple[list[PlannedNode], Sequence[str], Manifest]:
    from flows.engine.changed.defer import deferred
    from flows.engine.process.listing import list_nodes
    from flows.pipelines.plan import plan_of

    if defer_to:
        command = deferred(command, project, profile, defer_to)
    selected, manifest = list_nodes(command, project, profile)
    runs = [unique_id for unique_id in selected if not unique_id.startswith(("source.", "exposure."))]
    return plan_of(manifest, runs, command.select, command.selector, command.full_refresh), (), manifest


def _changes(
    command: DbtCommand, project: Project, profile: Profile, _: str | None
) -> tuple[list[PlannedNode], Sequence[str], Manifest]:
    from flows.engine.artifacts.artifacts import Artifacts
    from flows.engine.artifacts.manifest_file import manifest_of
    from flows.engine.changed.change_plan import plan_changes
    from flows.engine.changed.run_memory import memory_for_plan
    from flows.pipelines.plan import plan_of_changes

    memory = memory_for_plan(command, project, profile)
    found = plan_changes(memory, project, profile)
    parsed = memory.parsed
    manifest = manifest_of(parsed[1]) if parsed else Artifacts(memory.state.target_path).manifest
    return plan_of_changes(manifest, found.decisions, found.inputs, command.full_refresh), found.notes, manifest


def _print_plan(planned: list[PlannedNode], target: str) -> None:
    from rich.table import Table

    # A pipe has no width: a broken line can be neither searched nor copied.
    console = screen(width=None if sys.stdout.isatty() else 240)
    if not planned:
        console.print(f"Nothing would run on {target}: the selection matches no node.")
        return
    runs = [node for node in planned if node.step]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for title in ("step", "node", "type", "what dbt does", "why"):
        table.add_column(title, overflow="fold")
    for node in planned:
        table.add_row(str(node.step or ""), node.name, node.resource_type.replace("_", " "), node.action, node.reason)
    console.print(table)
    console.print(
        f"\n{len(runs)} nodes in {max((node.step for node in runs), default=0)} steps on {target}. "
        "Nothing was executed."
    )
