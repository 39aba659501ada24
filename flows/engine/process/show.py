"""Ask dbt for rows and for compiled SQL; it speaks to every warehouse that it can build on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from flows.engine.artifacts.artifacts import RUN_RESULTS
from flows.engine.artifacts.compiled import compiled_results
from flows.engine.context.command import DbtCommand
from flows.engine.context.events import DbtEvent
from flows.engine.context.project import Project
from flows.engine.process.door import Dbt
from infrastructure.errors import ConfigError

if TYPE_CHECKING:
    from infrastructure.profiles import Profile


class Preview(NamedTuple):
    """Rows of one node, in JSON's own types."""

    name: str
    rows: list[dict[str, Any]]


def preview_rows(command: DbtCommand, project: Project, profile: Profile) -> list[Preview]:
    """Return the first rows of each node of a `show`.

    Raises:
        DbtRunFailed: the SQL is wrong, or the warehouse does not answer.
        ConfigError: dbt could not start, or the selection matches nothing that has rows.
    """
    found: list[Preview] = []

    def take(event: DbtEvent) -> None:
        if event.name == "ShowNode" and event.data:
            name = "inline" if event.data.get("is_inline") else str(event.data.get("node_name"))
            found.append(Preview(name, orjson.loads(event.data["preview"])))

    Dbt(project, profile).ask(replace(command, flags=(*command.flags, "--output", "json")), take)
    if not found:
        raise _nothing(command, profile.target)
    return found


def compiled_sql(command: DbtCommand, project: Project, profile: Profile) -> dict[str, str]:
    """Return the SQL of each node of a `compile`, by the node's name.

    Raises:
        DbtRunFailed: the SQL or Jinja is wrong.
        ConfigError: dbt could not start, or the selection matches nothing that has SQL.
    """
    content = Dbt(project, profile).ask(command, lambda _: None, artifact=RUN_RESULTS)
    found = compiled_results(orjson.loads(content)) if content else {}
    if not found:
        raise _nothing(command, profile.target)
    return found


def _nothing(command: DbtCommand, target: str) -> ConfigError:
    asked = command.select or command.selector or "what was asked for"
    return ConfigError(f"{command.name} on target {target}: {asked} matches no node that has SQL. Look for it with ls.")


def show_rows(relation: str, limit: int, project: Project, profile: Profile) -> list[dict[str, Any]]:
    """Return up to `limit` rows of a relation, in JSON's own types: times as text, decimals as numbers.

    Args:
        relation: as dbt names it, quotes included.

    Raises:
        DbtRunFailed: the warehouse does not have it, or does not answer.
        ConfigError: dbt could not start.
    """
    flags = ("--inline", f"select * from {relation}", "--limit", str(limit), "--output", "json")
    shown: list[dict[str, Any]] = []

    def take(event: DbtEvent) -> None:
        if event.name == "ShowNode" and event.data:
            shown.extend(orjson.loads(event.data["preview"]))

    Dbt(project, profile).ask(DbtCommand("show", flags=flags), take)
    return shown
