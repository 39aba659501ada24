"""What an interrupted run left undone: read from its ledger and from what dbt itself wrote down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from flows.engine.artifacts.results import NodeResult, result_of
from flows.engine.context.command import DbtCommand, flags_in
from flows.engine.context.events import SUCCEEDED, WARNED, NodeEvent, parse_line
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import LEDGER, TEXT_LOG, State, dbt_log
from flows.engine.ledger.ledger import is_damaged, read_ledger
from infrastructure.errors import ConfigError

# dbt's outcomes after which a node must not run again.
DONE = SUCCEEDED | WARNED


@dataclass(frozen=True)
class Interrupted:
    """A run that did not get to a good end.

    Attributes:
        done: the nodes that it did finish. Its hooks are none: dbt runs them whenever it runs.
        hooks: unique ids of its hooks that came to a good end.
    """

    run_path: Path
    done: Mapping[str, NodeResult]
    hooks: frozenset[str] = frozenset()


def interrupted_run(state: State, command: DbtCommand) -> Interrupted | None:
    """Return the last run of this very command, if it did not get to a good end; None, and a note of why, otherwise.

    Raises:
        ConfigError: the record of the run that would be resumed is damaged or was deleted, so that done and undone
            cannot be told.

    A node counts as done when the ledger says so, or dbt's own log does: when the flow process was killed, dbt may
    have finished a node whose event nobody read any more.
    """
    wanted = fingerprint(command)
    for run_path in reversed(state.runs()):
        entries = _entries(run_path)
        if not entries or entries[0].get("command") != wanted:
            continue
        if any(entry.get("kind") == "end" and entry.get("is_ok") for entry in entries):
            current_reporter().note("Nothing to resume: the last run of this came to its end. Running it all.")
            return None
        return Interrupted(run_path, _done_by(run_path, entries), _good_hooks(run_path, entries))
    current_reporter().note(
        f"There is no record of an earlier run of this under {state.folder}, so nothing is known to be done: running "
        "it all. If one was cut off on another machine, or its record was deleted, models that only append get their "
        "rows a second time."
    )
    return None


def _done_by(run_path: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, NodeResult]:
    """Return what a run finished, with what the run that it went on from had finished.

    A run that was killed while it found out what was left has none of that in its own record yet.
    """
    done: dict[str, NodeResult] = {}
    resumed = entries[0].get("resumes")
    if resumed and (before := _entries(run_path.parent / resumed)):
        done = _done_by(run_path.parent / resumed, before)
    elif resumed and not any(entry.get("attempt") for entry in entries):
        raise _gone(run_path.parent / resumed / LEDGER)
    for entry in entries:
        if entry.get("kind") == "node":
            _take(done, NodeEvent(**entry["event"]))
    for event in logged_events(dbt_log(run_path)):
        _take(done, event)
    return done


def _good_hooks(run_path: Path, entries: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    told = [NodeEvent(**entry["event"]) for entry in entries if entry.get("kind") == "node"]
    last = {event.unique_id: event.status for event in [*told, *logged_events(dbt_log(run_path))] if event.is_hook}
    return frozenset(unique_id for unique_id, status in last.items() if status in DONE)


def _entries(run_path: Path) -> list[dict[str, Any]]:
    path = run_path / LEDGER
    if not path.exists():
        if (run_path / TEXT_LOG).exists() or dbt_log(run_path).exists():
            raise _gone(path)
        return []
    entries = list(read_ledger(path))
    is_headless = bool(path.stat().st_size) and (not entries or entries[0].get("kind") != "run")
    if is_headless or (is_damaged(path) and not dbt_log(run_path).exists()):
        raise ConfigError(
            f"The record of the last run is damaged, so nobody can say what it had done: {path}. "
            "Look at its run.log beside it; then run without --resume to do everything again."
        )
    return entries


def _gone(path: Path) -> ConfigError:
    return ConfigError(
        f"The record of the last run was deleted, so nobody can say what it had done: {path}. Put it back; or run "
        "without --resume to do everything again, which gives models that only append their rows a second time."
    )


def fingerprint(command: DbtCommand) -> dict[str, Any]:
    """Return what makes two commands the same, in JSON's own types."""
    said = {**asdict(command), "vars": orjson.loads(orjson.dumps(dict(command.vars), option=orjson.OPT_NON_STR_KEYS))}
    said["flags"] = list(command.flags)
    nodes = said.pop("nodes")
    # Left out where there are none, so that a run from before there were any is found again.
    said |= {} if nodes is None else {"nodes": list(nodes)}
    return said | ({"environment": flags} if (flags := flags_in(os.environ)) else {})


def _take(done: dict[str, NodeResult], event: NodeEvent) -> None:
    if event.is_hook:
        return
    if event.status in DONE:
        done[event.unique_id] = result_of(event)
    elif event.finished_at is not None:
        # A later attempt that failed takes an earlier success back.
        done.pop(event.unique_id, None)


def logged_events(path: Path) -> list[NodeEvent]:
    """Return what dbt's own log says of nodes; empty when there is no such log."""
    if not path.exists():
        return []
    with path.open("rb") as lines:
        events = [parse_line(line) for line in lines]
    return [event.node for event in events if event and event.node]
