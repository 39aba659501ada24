"""Runs whose process was killed: they could not record themselves, so the next run of the target does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.results import DbtResult, NodeResult, result_of
from flows.engine.context.command import DbtCommand
from flows.engine.context.events import STARTED
from flows.engine.context.state import LEDGER, State
from flows.engine.ledger.ledger import Ledger, node_events, read_ledger
from flows.engine.ledger.undone import Reasons, untold

# The next run records a killed one; further back there is nothing new.
_LOOKED_AT = 5
_ENDS = frozenset({"end", "stopped", "recorded"})


@dataclass(frozen=True)
class CutOff:
    """A run that was killed, as its ledger has it, and the sentence about it."""

    command: DbtCommand
    result: DbtResult
    error: str


def cut_off_runs(state: State, but_not: Path) -> Iterator[CutOff]:
    """Yield the last runs that were killed before they could record themselves, each of them once.

    Call it while the target is locked: a run in progress looks like one that was killed.

    Args:
        but_not: the run that is being recorded.
    """
    for run_path in state.runs()[-_LOOKED_AT:]:
        ledger = run_path / LEDGER
        if run_path == but_not or not ledger.exists():
            continue
        entries = list(read_ledger(ledger))
        if not entries or entries[0].get("kind") != "run" or any(entry.get("kind") in _ENDS for entry in entries):
            continue
        yield _cut_off(run_path, entries, state)
        with Ledger(ledger) as file:
            file.append({"kind": "recorded"})


def _cut_off(run_path: Path, entries: list[dict[str, Any]], state: State) -> CutOff:
    begun = entries[0]
    said: dict[str, Any] = dict(begun["command"])
    said["flags"] = tuple(said["flags"])
    events = node_events(entries)
    ended_at: datetime = max([begun["at"], *(event.finished_at or event.started_at for event in events)])
    nodes: dict[str, NodeResult] = {}
    for event in events:
        if event.status == STARTED:
            cut = result_of(replace(event, status="interrupted", finished_at=ended_at), nodes.get(event.unique_id))
            nodes[event.unique_id] = replace(cut, message="Cut off: the process that ran it was killed.")
        else:
            nodes[event.unique_id] = replace(
                result_of(event), attempts=nodes[event.unique_id].attempts if event.unique_id in nodes else 1
            )
    manifest = Artifacts(state.target_path).manifest_if_any
    to_run = (unique_id for entry in entries if entry.get("kind") == "selected" for unique_id in entry["nodes"])
    reasons = Reasons(is_stopped=True, because=" as its process was killed")
    left = untold(to_run, nodes, (), manifest, reasons)
    nodes |= {key: replace(node, started_at=ended_at, finished_at=ended_at) for key, node in left.items()}
    command = DbtCommand(**said)
    result = DbtResult(
        command.name, begun["target"], tuple(nodes.values()), begun["at"], ended_at, state.target_path, run_path
    )
    result = replace(result, commit=begun.get("commit"))
    return CutOff(command, result, f"{command.name} was killed before it could end; its record goes to this point.")
