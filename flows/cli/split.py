"""`python -m flows split`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flows.cli.options import (
    examples,
    exclude_option,
    full_refresh_option,
    parse_vars,
    project_option,
    select_option,
    target_option,
    vars_option,
)
from flows.cli.target import profile_for_parsing, set_up
from infrastructure.console import dumps, json_option
from infrastructure.screen import echo, screen

if TYPE_CHECKING:
    from flows.engine.parts import Split
    from flows.split import SplitResult


@click.command(
    epilog=examples(
        "python -m flows split --plan",
        "python -m flows split --target postgres --by group --workers 2",
        "python -m flows split --target prod --by tag:sales,people --deployment build-part/prod --workers 8",
    )
)
@target_option
@click.option(
    "--by",
    default="group",
    show_default=True,
    help="What makes a part: group, folder, or tags, as in tag:sales,people.",
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Parts at once.")
@click.option(
    "--deployment",
    metavar="FLOW/NAME",
    help="Of flows.split.build_part, on whose workers the parts run; by default here.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Show the parts, and run nothing.")
@select_option
@exclude_option
@full_refresh_option
@vars_option
@project_option
@click.option("--wait/--no-wait", default=True, help="Wait for a run that is writing to the target.")
@json_option
def split(
    target: str,
    by: str,
    workers: int,
    deployment: str | None,
    only_plan: bool,
    select: tuple[str, ...],
    exclude: tuple[str, ...],
    full_refresh: bool,
    variables: str | None,
    project_dir: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Build one large project in parts, a domain each, on several workers.

    It helps where one dbt process is the bottleneck, and the warehouse is not. See docs/scaling.md.
    """
    words = (" ".join(select) or None, " ".join(exclude) or None)
    if only_plan:
        _print_plan(_planned(target, by, words, project_dir), as_json)
        return
    with set_up(target):
        from contextlib import nullcontext

        from flows.split import require_many_writers, split_build
        from flows.split_workers import local_workers
        from infrastructure.profiles import load_profile

        require_many_writers(load_profile(target))
        with nullcontext(deployment) if deployment else local_workers(workers) as name:
            done = split_build(
                deployment=name,
                target=target,
                by=by,
                workers=workers,
                select=words[0],
                exclude=words[1],
                full_refresh=full_refresh,
                vars=parse_vars(variables) or None,
                project_dir=project_dir,
                wait=wait,
            )
    _print(done, as_json)


def _planned(target: str, by: str, words: tuple[str | None, str | None], project_dir: str | None) -> Split:
    from flows.engine.context.command import DbtCommand
    from flows.engine.context.project import read_project
    from flows.engine.parts import domain_by
    from flows.engine.parts import split as split_of
    from flows.engine.process.listing import list_nodes

    domain = domain_by(by)
    selected, graph = list_nodes(DbtCommand("build", *words), read_project(project_dir), profile_for_parsing(target))
    return split_of(graph, selected, domain)


def _print_plan(found: Split, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        echo(dumps(asdict(found)))
        return
    width = max((len(part.name) for part in found.parts), default=0)
    echo(f"{'part':<{width}}  {'wave':>4}  {'nodes':>5}  after")
    for part in found.parts:
        echo(f"{part.name:<{width}}  {part.wave + 1:>4}  {len(part.nodes):>5}  {', '.join(part.after) or '-'}")
    echo(
        f"\n{found.cut} of {found.edges} edges lead from one part to another; {found.waves} waves. "
        "Nothing was executed."
    )


def _print(done: SplitResult, as_json: bool) -> None:

    from flows.report.artifacts import as_document
    from flows.report.terminal import print_log_path, print_result

    if as_json:
        parts = {
            name: {"flow_run": done.flow_runs[name], "seconds": done.wall_seconds[name]} for name in done.flow_runs
        }
        echo(dumps({**as_document([done.build]), "parts": parts}))
        return
    console = screen()
    for part in done.split.parts:
        console.print(
            f"part {part.name}: {len(part.nodes)} nodes, {done.wall_seconds[part.name]:.1f} s", highlight=False
        )
    print_result(console, done.build)
    print_log_path(console, done.build)
