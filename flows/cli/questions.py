"""`tributary ls`, `show` and `compile`: questions to dbt, which write nothing and wait for no other run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import (
    examples,
    exclude_option,
    indirect_selection_option,
    options_of,
    project_option,
    select_option,
    selector_option,
    target_option,
    vars_option,
)
from flows.cli.target import profile_for_parsing, require_built
from infrastructure.console import dumps, json_option, say_aside
from infrastructure.screen import echo

if TYPE_CHECKING:
    from flows.engine.artifacts.manifest import Node

_TYPES = (
    "model",
    "seed",
    "snapshot",
    "test",
    "unit_test",
    "source",
    "exposure",
    "metric",
    "semantic_model",
    "function",
)
_inline_option = click.option("--inline", metavar="SQL", help="This SQL, with Jinja, in place of a node.")


def _question(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what a question is about."""
    for option in (project_option, vars_option, selector_option, exclude_option, select_option, target_option):
        command = option(command)
    return command


@click.command(
    epilog=examples(
        "tributary ls --select tag:marts",
        "tributary ls --resource-type model --output path",
        "tributary ls --json | jq -r '.[] | select(.materialized == \"table\") | .name'",
    )
)
@_question
@indirect_selection_option
@click.option("--resource-type", "types", type=click.Choice(_TYPES), multiple=True, help="Only these; several times.")
@click.option(
    "--output",
    type=click.Choice(["selector", "name", "path"]),
    default="selector",
    show_default=True,
    help="What to print of each node: what selects it, its name or its file.",
)
@json_option
def ls(
    target: str,
    project_dir: str | None,
    types: tuple[str, ...],
    output: str,
    as_json: bool,
    **asked: Any,  # noqa: ANN401  (the selection)
) -> None:
    """List the nodes of a selection, one a line."""
    from flows.engine.context.project import project_to_run
    from flows.engine.ledger.failures import nothing_matched
    from flows.engine.process.listing import list_nodes

    flags = [word for each in types for word in ("--resource-type", each)]
    command = options_of(asked).command("ls", flags)
    found, manifest = list_nodes(command, project_to_run(project_dir), profile_for_parsing(target))
    nodes = [manifest.nodes[unique_id] for unique_id in found if unique_id in manifest.nodes]
    if not nodes and (command.select or command.selector):
        raise nothing_matched(command, target, [node.name for node in manifest.nodes.values()])
    if as_json:
        echo(dumps([_document(node) for node in nodes]))
        return
    for node in nodes:
        echo({"name": node.name, "path": node.path}.get(output) or _selector(node))


@click.command(
    epilog=examples(
        "tributary show --select fct_orders --limit 20",
        "tributary show --inline \"select count(*) as n from {{ ref('fct_orders') }}\" --json",
    )
)
@_question
@_inline_option
@click.option(
    "--limit", type=click.IntRange(1), default=5, show_default=True, metavar="ROWS", help="How many rows at most."
)
@json_option
def show(
    target: str,
    project_dir: str | None,
    inline: str | None,
    limit: int,
    as_json: bool,
    **asked: Any,  # noqa: ANN401  (the selection)
) -> None:
    """Show rows that the SQL of a node gives now; nothing is built."""
    from flows.engine.context.project import project_to_run
    from flows.engine.process.show import preview_rows
    from flows.report.rows_table import print_rows, width_of_stdout

    command = options_of(asked).command("show", _of(inline, asked, ("--limit", str(limit))))
    previews = preview_rows(command, project_to_run(project_dir), require_built(profile_for_parsing(target)))
    if as_json:
        echo(dumps(previews[0].rows if len(previews) == 1 else {each.name: each.rows for each in previews}))
        return
    for each in previews:
        if len(previews) > 1:
            echo(f"{each.name}\n")
        columns = list(each.rows[0]) if each.rows else []
        print_rows(columns, [list(row.values()) for row in each.rows], width_of_stdout())
        if not each.rows:
            say_aside(f"{each.name} has no rows.")


@click.command(
    epilog=examples(
        "tributary compile --select fct_orders",
        "tributary compile --inline \"select * from {{ ref('fct_orders') }}\" | duckdb warehouse.duckdb",
    )
)
@_question
@_inline_option
@json_option
def compile(
    target: str,
    project_dir: str | None,
    inline: str | None,
    as_json: bool,
    **asked: Any,  # noqa: ANN401  (the selection)
) -> None:
    """Print the SQL that dbt makes of nodes on a target."""
    from flows.engine.context.project import project_to_run
    from flows.engine.process.show import compiled_sql

    command = options_of(asked).command("compile", _of(inline, asked, ()))
    found = compiled_sql(command, project_to_run(project_dir), require_built(profile_for_parsing(target)))
    if as_json:
        echo(dumps(found))
        return
    for name, sql in found.items():
        echo(f"-- {name}\n{sql};\n" if len(found) > 1 else sql)


def _of(inline: str | None, asked: dict[str, Any], flags: tuple[str, ...]) -> tuple[str, ...]:
    selected = any(asked[name] for name in ("select", "exclude", "selector"))
    if bool(inline) == bool(selected):
        raise click.UsageError("Give either --select (or --selector), or --inline.")
    return ("--inline", inline, *flags) if inline else flags


def _selector(node: Node) -> str:
    """Return what selects a node, as dbt lists it."""
    kinds = ("source", "exposure", "metric", "unit_test", "saved_query", "semantic_model")
    return f"{node.resource_type}:{node.fqn}" if node.resource_type in kinds else node.fqn


def _document(node: Node) -> dict[str, Any]:
    return {
        "unique_id": node.unique_id,
        "name": node.name,
        "resource_type": node.resource_type,
        "materialized": node.materialized,
        "selector": _selector(node),
        "path": node.path,
        "relation": node.relation,
        "tags": node.tags,
        "depends_on": node.depends_on,
    }
