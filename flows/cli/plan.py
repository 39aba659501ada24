"""`tributary plan`."""

from __future__ import annotations

from collections import Counter
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
from infrastructure.plain_text import count_of
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
        "tributary plan",
        "tributary plan --select fct_musician_payment+",
        "tributary plan --changed",
        "tributary plan --json",
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
@click.option("--all", "is_all", is_flag=True, help="A line for each node, however many there are.")
@json_option
def plan(
    target: str,
    project_dir: str | None,
    is_all: bool,
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

        nodes = [asdict(node) for node in planned]
        document = {"target": target, "commit": project.commit, "nodes": nodes, "notes": notes, "dbt": program.sentence}
        echo(dumps(document))
    else:
        _print_plan(planned, target, is_all)
        of_commit = f" and commit {project.commit[:12]}" if project.commit else ""
        for note in (*notes, f"It is for {program.sentence}{of_commit}."):
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


# Beyond so many rows a terminal shows folders.
_MANY = 40


def _print_plan(planned: list[PlannedNode], target: str, is_all: bool) -> None:
    from flows.report.rows_table import print_rows, width_of_stdout

    if not planned:
        echo(f"Nothing would run on {target}: the selection matches no node.")
        return
    width = width_of_stdout()
    runs = [node for node in planned if node.step]
    if width is None or is_all or len(planned) <= _MANY:
        rows = [
            (str(node.step or ""), node.name, node.resource_type.replace("_", " "), node.action, node.reason)
            for node in planned
        ]
        print_rows(("step", "node", "type", "what dbt does", "why"), rows, width)
    else:
        columns = ("folder", "what would run", "reused")[: 2 if len(runs) == len(planned) else 3]
        print_rows(columns, [row[: len(columns)] for row in by_folder(planned)], width)
        echo("\nWith --all: a line for each node, with what dbt does and why.")
    steps = count_of(max((node.step for node in runs), default=0), "step")
    echo(f"\n{count_of(len(runs), 'node')} in {steps} on {target}. Nothing was executed.")


def by_folder(planned: list[PlannedNode]) -> list[tuple[str, str, str]]:
    """Return folder, what would run there, and how many of its nodes would not."""
    folders: dict[str, list[PlannedNode]] = {}
    for node in planned:
        folders.setdefault(node.path.rpartition("/")[0] or ".", []).append(node)
    return [
        (folder, _counts([node for node in nodes if node.step]), str(sum(not node.step for node in nodes) or ""))
        for folder, nodes in sorted(folders.items())
    ]


def _counts(nodes: list[PlannedNode]) -> str:
    from flows.engine.artifacts.fingerprints import BUILT_TYPES, TEST_TYPES

    order = {kind: number for number, kind in enumerate((*BUILT_TYPES, *TEST_TYPES))}
    found = Counter(sorted((node.resource_type for node in nodes), key=lambda kind: order.get(kind, -1)))
    return ", ".join(count_of(count, resource_type.replace("_", " ")) for resource_type, count in found.items())
