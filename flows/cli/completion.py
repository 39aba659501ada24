"""What the tab key offers in a shell: targets, projects and nodes, from files alone; nothing where there are none."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
# What stands before a name in a selection: other names that it is joined with, and an operator.
_BEFORE = re.compile(r"^(?:.*,)?(?:\d*\+|@)?")


def _quiet(offers: Callable[[click.Context, str], Iterable[CompletionItem | str]]) -> Complete:
    """Return what click asks: the offers that begin with the text; none where a file of them can't be read."""

    def complete(ctx: click.Context, _: click.Parameter, text: str) -> list[CompletionItem]:
        with suppress(Exception):
            found = [item if isinstance(item, CompletionItem) else CompletionItem(item) for item in offers(ctx, text)]
            return [item for item in found if item.type != "plain" or str(item.value).startswith(text)]
        return []

    return complete


@_quiet
def targets(ctx: click.Context, text: str) -> Iterable[str]:
    """Offer the targets of targets.yml."""
    from flows.engine.context.project_files import yaml_mapping
    from infrastructure.workspace import workspace

    return yaml_mapping(workspace().targets)["targets"]


@_quiet
def projects(ctx: click.Context, text: str) -> Iterable[CompletionItem | str]:
    """Offer the projects of the workspace by name, and folders."""
    from infrastructure.workspace import workspace

    yield CompletionItem(text, type="dir")
    yield from workspace().places.projects


@_quiet
def selectors(ctx: click.Context, text: str) -> Iterable[str]:
    """Offer the selectors of the project."""
    from flows.engine.context.project_files import yaml_mapping

    found = yaml_mapping(_folder(ctx) / "selectors.yml").get("selectors")
    return [each["name"] for each in found or []]


@_quiet
def nodes(ctx: click.Context, text: str) -> Iterable[str]:
    """Offer what a selection can name, by the newest manifest that there is; nothing is parsed for it."""
    from flows.engine.artifacts.manifest_file import selectable_names

    path = _manifest(ctx)
    before, names = _BEFORE.match(text), selectable_names(path) if path else ()
    # A project has many more tests than models, and people select those by their model.
    for some in names:
        if found := [word for name in some if (word := f"{before[0] if before else ''}{name}").startswith(text)]:
            return found
    return []


def _folder(ctx: click.Context) -> Path:
    """Return the folder of the project; one of a repository is not fetched for it."""
    from infrastructure.workspace import workspace

    given = ctx.params.get("project_dir")
    named = workspace().named_project(given)
    if named and named.git:
        raise LookupError(given)
    return workspace().at(named.folder or ".") if named else Path(given or workspace().project)


def _manifest(ctx: click.Context) -> Path | None:
    """Return the newest manifest of the project, on the target if one is named; dbt's own where no run has left any."""
    from flows.engine.artifacts.manifest_file import MANIFEST
    from flows.engine.context.project_files import yaml_mapping
    from flows.engine.context.state import state_root

    name = yaml_mapping((folder := _folder(ctx)) / "dbt_project.yml")["name"]
    kept = state_root(os.environ).glob(f"{name}*/{ctx.params.get('target') or '*'}/target/{MANIFEST}")
    found = [path for path in kept if path.parts[-4].partition("@")[0] == name]
    own = folder / "target" / MANIFEST
    return max([*found, *([own] if own.is_file() else [])], key=lambda path: path.stat().st_mtime, default=None)
