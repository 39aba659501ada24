"""Runs that were made up, as the history would hold them: what health and report are tested on as well."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.history.rows import Row
from flows.history.store import HistoryStore

AT = datetime(2026, 1, 31, 12)
NOW = AT.replace(tzinfo=UTC)


def node(name: str, outcome: str = "succeeded", seconds: float = 1.0, kind: str = "model", **fields: Any) -> Row:
    """Return the columns of a node; `start` is in seconds from the start of its run."""
    start = fields.pop("start", 0.0)
    return {
        "unique_id": f"{kind}.shop.{name}",
        "name": name,
        "resource_type": kind,
        "outcome": outcome,
        "status": {"succeeded": "success", "failed": "error", "warned": "warn"}.get(outcome, outcome),
        "seconds": seconds,
        "queue_seconds": 0.0,
        "thread": "Thread-1",
        "is_critical": False,
        "depends_on": [],
        "tested": [],
        "tags": [],
        "start": start,
        **fields,
    }


def run(nodes: Sequence[Row], started_at: datetime = AT, seconds: float = 60.0, **fields: Any) -> list[Row]:
    """Return the rows of a run with these nodes."""
    outcomes = {row["outcome"] for row in nodes}
    columns: Row = {
        "run_id": f"{started_at:%Y%m%dT%H%M%S.%fZ}-{fields.get('command', 'build')[-9:].replace(' ', '-')}",
        "flow_run_id": None,
        "project": "shop",
        "target": "dev",
        "warehouse": "duckdb",
        "command": "dbt build",
        "is_full_refresh": False,
        "flow_started_at": started_at,
        "run_started_at": started_at,
        "run_finished_at": started_at + timedelta(seconds=seconds),
        "run_outcome": "failed" if "failed" in outcomes else "warned" if "warned" in outcomes else "succeeded",
        **fields,
    }
    rows: list[Row] = []
    for row in nodes:
        begun = started_at + timedelta(seconds=row["start"])
        ended = begun + timedelta(seconds=row["seconds"])
        rows.append(columns | {"started_at": begun, "finished_at": ended} | row)
    return rows or [columns]


def stored(folder: Path, *runs: Sequence[Row]) -> HistoryStore:
    """Return a history that holds these runs."""
    store = HistoryStore(str(folder / "history"))
    for rows in runs:
        store.write(rows)
    return store


def stored_together(folder: Path, *runs: Sequence[Row]) -> HistoryStore:
    """Return a history that holds these runs in one file, as after a merge: to write each takes 50 ms."""
    return stored(folder, [row for rows in runs for row in rows]) if runs else stored(folder)
