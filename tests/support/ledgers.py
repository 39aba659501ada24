"""Entries of a ledger, written by hand: those of a project `shop` on target `dev`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.engine.context.events import NodeEvent
from flows.engine.context.state import LEDGER
from flows.engine.ledger.ledger import Ledger

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)


def head(**more: Any) -> dict[str, Any]:
    """Return the first entry."""
    place = {"project": "shop", "warehouse": "duckdb", "address": "duckdb:///data/shop.duckdb"}
    return {"kind": "run", "command": {"verb": "build", "flags": []}, "target": "dev", "at": AT, "place": place} | more


def started(name: str) -> dict[str, Any]:
    """Return the entry of a model that begins."""
    event = NodeEvent(f"model.shop.{name}", name, "model", "table", "started", AT)
    return {"kind": "node", "attempt": 1, "event": _fields(event)}


def ended(name: str, status: str = "success") -> dict[str, Any]:
    """Return the entry of a model that ends."""
    at = AT + timedelta(seconds=3)
    event = NodeEvent(f"model.shop.{name}", name, "model", "table", status, AT, at, relation=f'"shop"."main"."{name}"')
    return {"kind": "node", "attempt": 1, "event": _fields(event)}


def learned(**nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of what the end of a command says of models."""
    return {"kind": "learned", "nodes": {f"model.shop.{name}": said for name, said in nodes.items()}}


def ending(is_ok: bool = True) -> dict[str, Any]:
    """Return the last entry."""
    return {"kind": "end", "at": AT, "is_ok": is_ok, "nodes": 1}


def written(run_path: Path, entries: Iterable[dict[str, Any]]) -> Path:
    """Write a ledger into a run's folder, and return the folder."""
    run_path.mkdir(parents=True)
    with Ledger(run_path / LEDGER) as ledger:
        for entry in entries:
            ledger.append(entry)
    return run_path


def _fields(event: NodeEvent) -> dict[str, Any]:
    return {name: getattr(event, name) for name in NodeEvent.__dataclass_fields__}
