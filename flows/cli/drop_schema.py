"""`tributary drop-schema`."""

from __future__ import annotations

import click

from flows.cli.options import examples
from flows.cli.target import writing_to
from infrastructure.console import dumps, json_option
from infrastructure.screen import echo


@click.command(
    "drop-schema",
    epilog=examples(
        "TRIBUTARY_CI_SCHEMA=ci_pr_42 tributary drop-schema --target ci",
        "tributary drop-schema --target ci --dry-run",
    ),
)
@click.option("--target", "-t", required=True, help="The target of pull requests.")
@click.option("--dry-run", is_flag=True, help="Show what would be dropped, and drop nothing.")
@json_option
def drop_schema(target: str, dry_run: bool, as_json: bool) -> None:
    """Drop the schemas that a pull request's builds created, recognised by the mark in them.

    A schema without a mark, with the mark of another target, or whose name does not begin with ci_, is kept.
    """
    with writing_to(target) as profile:
        from flows.pipelines.ci_schemas import drop_schemas

        found = drop_schemas(profile, dry_run)
    if as_json:
        document = {"target": target, "dropped": not dry_run, "schemas": found.schemas, "left": found.left}
        echo(dumps(document))
        return
    verb = "Would drop" if dry_run else "Dropped"
    said = (
        f"{verb} {', '.join(found.schemas)}."
        if found.schemas
        else f"Target {target} has no schema that its builds created: nothing to drop."
    )
    echo(said)
    for name in found.left:
        echo(f"Kept {name}: it has no mark of a build of this target. Drop it by hand if it is no longer needed.")
