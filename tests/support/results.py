"""Results of dbt as they are reported, made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.engine.artifacts.results import DbtResult, NodeResult

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def node(name: str, status: str = "success", seconds: float = 1.0, kind: str = "model", **fields: Any) -> NodeResult:
    return NodeResult(f"{kind}.shop.{name}", name, kind, "table", status, AT, AT + timedelta(seconds=seconds), **fields)


def result(*nodes: NodeResult, notes: tuple[str, ...] = (), target: str = "dev") -> DbtResult:
    return DbtResult("dbt build", target, nodes, AT, AT + timedelta(seconds=9.04), Path("/t"), Path("/run"), notes)


MIXED = result(
    node("quick"),
    node("slow", seconds=7.0, adapter_response={"rows_affected": 1200}),
    node("wrong", "error", message="Binder Error:\n  no column | here", seconds=0.1),
    node("kept_back", "skipped", seconds=0.0),
    node("odd", "warn", kind="test", failures=3, message="Got 3 results"),
)
