"""A run whose process was killed is written down by the next one, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.events import NodeEvent
from flows.engine.context.state import LEDGER, State
from flows.engine.ledger.ledger import Ledger
from flows.engine.ledger.resume import fingerprint, interrupted_run
from flows.history.query import ask
from flows.history.record import record
from flows.history.store import history_store
from infrastructure.profiles import Profile

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
COMMAND = DbtCommand("build", select="tag:marts", flags=("--fail-fast",))
PROFILE = Profile("dev", "shop", {"type": "duckdb"}, {})


def event(name: str, status: str, begun: float, ended: float | None = None) -> NodeEvent:
    finished_at = None if ended is None else AT + timedelta(seconds=ended)
    return NodeEvent(f"model.shop.{name}", name, "model", "table", status, AT + timedelta(seconds=begun), finished_at)


def ledger_of(state: State, started_at: datetime, *events: NodeEvent, last: str | None = None) -> Path:
    folder = state.new_run(started_at, "build-x")
    with Ledger(folder / LEDGER) as ledger:
        ledger.append({"kind": "run", "command": fingerprint(COMMAND), "target": "dev", "at": started_at})
        ledger.append({"kind": "selected", "nodes": [each.unique_id for each in events] + ["model.shop.late"]})
        for each in events:
            ledger.node(each, 1)
        if last:
            ledger.append({"kind": last, "at": started_at, "is_ok": False})
    return folder


def write_down(state: State, started_at: datetime) -> None:
    """Write a run down as the end of one does."""
    folder = ledger_of(state, started_at)
    result = DbtResult("dbt build", "dev", (), started_at, started_at, state.target_path, folder)
    record(result, COMMAND, PROFILE)
    with Ledger(folder / LEDGER) as ledger:
        ledger.append({"kind": "end", "at": started_at, "is_ok": True})


def test_a_killed_run_is_in_the_history_with_what_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path))
    state = State(tmp_path / "shop" / "dev")
    done, again = event("done", "success", 1, 3), event("again", "error", 1, 2)
    started = [event(name, "started", 1) for name in ("done", "again", "cut")]
    killed = ledger_of(state, AT, *started, done, again, event("again", "started", 3), event("again", "success", 3, 5))
    for ending in ("end", "stopped"):
        ledger_of(state, AT + timedelta(minutes=1), event("a", "started", 1), last=ending)
    write_down(state, AT + timedelta(hours=1))
    write_down(state, AT + timedelta(hours=2))
    store = history_store({"TRIBUTARY_STATE": str(tmp_path)})
    runs = ask(
        store, "select run_id, run_outcome, selection, run_error, seconds from runs order by run_started_at"
    ).rows
    assert len(runs) == 3, "the killed one once, and the two that wrote themselves down"
    assert runs[0][:3] == (killed.name, "failed", "tag:marts")
    assert runs[0][3].startswith("dbt build was killed before it could end")
    assert runs[0][4] == 5.0, "to the last that is known of it"
    late = ask(store, "select message from nodes where name = 'late'").rows
    assert late == (("Not run: the run was stopped as its process was killed, before its turn came.",),)
    assert ask(store, "select name, outcome, attempts, seconds from nodes order by name").rows == (
        ("again", "succeeded", 2, 2.0),
        ("cut", "failed", 1, 4.0),
        ("done", "succeeded", 1, 2.0),
        ("late", "skipped", 0, 0.0),
    )


def test_a_killed_run_can_still_be_resumed_after_it_was_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path))
    state = State(tmp_path / "shop" / "dev")
    killed = ledger_of(state, AT, event("done", "success", 1, 3), event("cut", "started", 3))
    other = state.new_run(AT + timedelta(hours=1), "test-y")
    result = DbtResult("dbt test", "dev", (), AT, AT, state.target_path, other)
    record(result, DbtCommand("test"), PROFILE)
    left = interrupted_run(state, COMMAND)
    assert left is not None
    assert left.run_path == killed
    assert set(left.done) == {"model.shop.done"}
