"""`tributary ingest-git`."""

from __future__ import annotations

import click

from flows.cli.options import examples, raw_schema_option, target_option
from flows.cli.target import writing_to
from infrastructure.console import dumps, json_option, say
from infrastructure.screen import echo
from infrastructure.workspace import ROOT


@click.command(
    "ingest-git",
    epilog=examples(
        "tributary ingest-git",
        "tributary ingest-git --repo ../my-project --repo https://example.org/team/project.git",
    ),
)
@target_option
@click.option(
    "--repo",
    "repositories",
    multiple=True,
    metavar="PATH_OR_URL",
    help="A path or URL; may be given several times; default: the repository of this project.",
)
@raw_schema_option
@json_option
def ingest_git(target: str, repositories: tuple[str, ...], raw_schema: str, as_json: bool) -> None:
    """Load the commits of git repositories into the raw tables; read only new ones."""
    with writing_to(target) as profile:
        from flows.loaders.git import load as loader

        result = loader.ingest_git(profile, repositories or (str(ROOT),), raw_schema, None if as_json else say)
        if as_json:
            from dataclasses import asdict

            echo(dumps(asdict(result)))
