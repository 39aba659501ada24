"""Ask dbt which nodes a selection means."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.manifest_file import MANIFEST, manifest_of
from flows.engine.context.command import DbtCommand
from flows.engine.context.events import DbtEvent
from flows.engine.context.project import Project
from flows.engine.process.door import Dbt
from infrastructure.errors import DbtRunFailed

if TYPE_CHECKING:
    from infrastructure.profiles import Profile


def list_nodes(command: DbtCommand, project: Project, profile: Profile) -> tuple[list[str], Manifest]:
    """Return the unique ids that a selection means, and the manifest that they are in; it connects to nothing.

    Raises:
        ConfigError: the project or the selection is wrong.
        DbtRunFailed: the project's SQL or Jinja does not compile.
    """
    found, manifest = list_manifest(command, project, profile)
    return found, manifest_of(manifest)


def list_manifest(command: DbtCommand, project: Project, profile: Profile) -> tuple[list[str], bytes]:
    """Return the unique ids that a selection means, and the manifest of the parse that found them; see `list_nodes`."""
    keys = ("--output", "json", "--output-keys", "unique_id", "--no-print")
    found: list[str] = []

    def take(event: DbtEvent) -> None:
        if event.name == "PrintEvent" or event.name.startswith("ListCmdOut"):
            # dbt lists as a model prints: a line of the project's own is no node.
            with contextlib.suppress(ValueError, LookupError, TypeError):
                found.append(orjson.loads(event.text)["unique_id"])

    question = replace(command, verb="ls", flags=(*command.flags, *keys))
    manifest = Dbt(project, profile).ask(question, take, artifact=MANIFEST)
    if manifest is None:
        raise DbtRunFailed(
            f"{question.name} on target {profile.target} ended well and wrote no {MANIFEST}. "
            "Is DBT_WRITE_JSON set to false? Take that out."
        )
    return found, manifest
