"""Count the rows of tables with dbt, so on any warehouse, and keep the counts in the history."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.manifest import Manifest, Node
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.events import DbtEvent, name_in
from flows.engine.context.reporting import Reporter, current_reporter, reporting_to
from flows.engine.context.run_context import RunContext
from flows.engine.run import run_dbt
from flows.history.rows import Row, utc
from flows.history.store import history_store
from infrastructure.errors import ConfigError

# How many tables one query counts: the size of statements and argument lists is limited.
_AT_ONCE = 100


def count_rows(run: RunContext, select: str) -> dict[str, int]:
    """Count the rows of the selected tables, write the counts to the history, and return them by unique id.

    Call it while the target is locked.

    Args:
        select: words of tag:NAME, or names of models.

    Raises:
        ConfigError: no table is selected, or the project was never built.
        DbtRunFailed: a table can't be read.
    """
    tables = _tables(Artifacts(run.state.target_path).manifest, select)
    if not tables:
        raise ConfigError(f"No table of {run.project.name} matches {select!r}, so no rows can be counted.")
    counts: dict[str, int] = {}
    names = list(tables)
    for first in range(0, len(names), _AT_ONCE):
        part = names[first : first + _AT_ONCE]
        query = " union all ".join(
            f"select {number} as place, count(*) as row_count from {tables[name]}" for number, name in enumerate(part)
        )
        result, answers = _ask(run, query)
        found = {part[int(answer["place"])]: int(answer["row_count"]) for answer in answers}
        if len(found) != len(part):
            raise ConfigError(f"dbt show counted {len(found)} of {len(part)} tables. Log: {result.run_path}")
        history_store(os.environ).write(_history_rows(result, run, found))
        counts |= found
    return counts


def _tables(manifest: Manifest, select: str) -> dict[str, str]:
    words = select.split()
    tags = {word.removeprefix("tag:") for word in words if word.startswith("tag:")}
    return {
        node.unique_id: str(node.relation)
        for node in manifest.nodes.values()
        if node.holds_rows and (_is_named(node, words) or tags.intersection(node.tags))
    }


def _is_named(node: Node, words: Sequence[str]) -> bool:
    """Say whether words name a node; the name of a model stands for all its versions, as it does for dbt."""
    return node.name in words or node.unique_id.split(".")[2] in words


class _ShownRows:
    """Pass everything on, and keep the rows that `dbt show` shows."""

    def __init__(self, other: Reporter) -> None:
        self._other = other
        self.rows: list[Mapping[str, Any]] = []

    def stage(self, text: str) -> None:
        self._other.stage(text)

    def event(self, event: DbtEvent) -> None:
        if event.name != "ShowNode":
            self._other.event(event)
            return
        for row in orjson.loads((event.data or {})["preview"]):
            # Snowflake writes names in capitals.
            self.rows.append({key.lower(): value for key, value in cast(dict[str, Any], row).items()})

    def note(self, text: str) -> None:
        self._other.note(text)


def _ask(run: RunContext, query: str) -> tuple[DbtResult, Sequence[Mapping[str, Any]]]:
    shown = _ShownRows(current_reporter())
    command = DbtCommand("show", flags=("--inline", query, "--output", "json", "--limit", "-1"))
    with reporting_to(shown):
        result = run_dbt(command, run)
    return result, shown.rows


def _history_rows(result: DbtResult, run: RunContext, counts: Mapping[str, int]) -> list[Row]:
    row: Row = {
        "run_id": result.run_path.name,
        "project": run.state.project,
        "target": run.target,
        "warehouse": run.profile.warehouse,
        "command": "row counts",
        "run_started_at": utc(result.started_at),
        "run_finished_at": utc(result.finished_at),
        "run_outcome": "succeeded",
    }
    return [
        row | {"unique_id": unique_id, "name": name_in(unique_id), "row_count": count}
        for unique_id, count in counts.items()
    ]
