"""Read the rows of a table through dbt, which speaks to every warehouse that it can build on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from flows.engine.context.command import DbtCommand
from flows.engine.context.events import DbtEvent
from flows.engine.context.project import Project
from flows.engine.process.door import Dbt

if TYPE_CHECKING:
    from infrastructure.profiles import Profile


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
