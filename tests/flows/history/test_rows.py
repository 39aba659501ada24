"""A finished command as rows: what is taken from where."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.manifest_file import manifest_of
from flows.engine.artifacts.results import DbtResult, NodeResult, enriched
from flows.engine.context.command import DbtCommand
from flows.history.columns import COLUMNS
from flows.history.rows import FlowTimes, RunPlace, rows_of, waits
from infrastructure.errors import RunStopped

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def node(name: str, begun: float, ended: float, kind: str = "model", **fields: Any) -> NodeResult:
    begun_at, ended_at = AT + timedelta(seconds=begun), AT + timedelta(seconds=ended)
    return NodeResult(
        f"{kind}.shop.{name}", name, kind, "table", fields.pop("status", "success"), begun_at, ended_at, **fields
    )


def entry(name: str, kind: str = "model", after: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return {"name": name, "resource_type": kind, "depends_on": {"nodes": list(after)}, "config": {}, **fields}


MANIFEST: dict[str, Any] = {
    "nodes": {
        "model.shop.orders": entry("orders", group="sales", tags=["marts"]),
        "model.shop.report": entry("report", after=("model.shop.orders",), config={"meta": {"owner": "Board"}}),
        "test.shop.orders_ok": entry(
            "orders_ok", "test", ("model.shop.orders",), config={"severity": "WARN", "meta": {"critical": True}}
        ),
        "test.shop.both_ok": entry("both_ok", "test", ("model.shop.orders", "model.shop.report")),
    },
    "groups": {"group.shop.sales": {"name": "sales", "owner": {"name": "Sales"}}},
}


def result(*nodes: NodeResult, command: str = "dbt build", folder: Path = Path("/state")) -> DbtResult:
    return DbtResult(
        command, "dev", nodes, AT, AT + timedelta(seconds=9), folder / "target", folder / "runs" / "the-run"
    )


def declared(folder: Path) -> Manifest:
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    return Artifacts(folder).manifest


def test_a_node_has_what_dbt_measured_and_what_the_warehouse_said(tmp_path: Path) -> None:
    timing = [
        {"name": "compile", "started_at": "2026-01-31T12:00:00Z", "completed_at": "2026-01-31T12:00:00.250Z"},
        {"name": "execute", "started_at": "2026-01-31T12:00:00.250Z", "completed_at": "2026-01-31T12:00:02Z"},
    ]
    response = {"rows_affected": 7, "bytes_processed": 2048, "bytes_billed": 4096, "slot_ms": 30, "job_id": "j1"}
    ran = enriched(
        [node("orders", 0, 2)],
        {"model.shop.orders": {"timing": timing, "adapter_response": response, "thread_id": "Thread-3"}},
    )
    flow = FlowTimes("f1", AT, AT - timedelta(minutes=5))
    (row,) = rows_of(
        result(*ran), DbtCommand("build", select="orders"), RunPlace("shop", "bigquery"), declared(tmp_path), flow=flow
    )
    assert set(row) <= set(COLUMNS)
    assert row["run_id"] == "the-run"
    assert (row["compile_seconds"], row["execute_seconds"], row["seconds"]) == (0.25, 1.75, 2.0)
    assert (row["rows_affected"], row["bytes_processed"], row["bytes_billed"], row["slot_milliseconds"]) == (
        7,
        2048,
        4096,
        30,
    )
    assert (row["query_id"], row["thread"], row["owner"], row["tags"]) == ("j1", "Thread-3", "Sales", ["marts"])
    assert row["scheduled_at"] == datetime(2026, 1, 31, 11, 55), "UTC, without a zone"
    assert (row["selection"], row["run_outcome"], row["run_error"]) == ("orders", "succeeded", None)


def test_owner_and_weight_come_from_meta_group_and_what_is_tested(tmp_path: Path) -> None:
    known = declared(tmp_path)
    assert known.declared_owners("model.shop.report") == ("Board",)
    assert known.declared_owners("test.shop.orders_ok") == ("Sales",), "a test is its model's"
    assert known.declared_owners("model.shop.nobody_knows") == ()
    rows = rows_of(
        result(node("orders_ok", 0, 1, "test", status="warn", failures=3)),
        DbtCommand("test"),
        RunPlace("shop", "x"),
        known,
    )
    assert (rows[0]["is_critical"], rows[0]["severity"], rows[0]["failures"]) == (True, "warn", 3)
    assert rows[0]["owner"] == "Sales"
    assert (rows[0]["run_outcome"], rows[0]["tested"]) == ("warned", ["model.shop.orders"])


def test_a_run_without_a_node_is_one_row_with_its_error() -> None:
    rows = rows_of(
        result(), DbtCommand("build", selector="nightly"), RunPlace("shop", "x"), Manifest({}), error="no " + "x" * 9000
    )
    assert len(rows) == 1
    assert "unique_id" not in rows[0]
    assert (rows[0]["run_outcome"], rows[0]["selection"]) == ("failed", "selector:nightly")
    assert len(rows[0]["run_error"]) == 2000


def test_a_run_that_was_stopped_is_cancelled_unless_something_of_it_had_failed() -> None:
    def outcome(*nodes: NodeResult) -> str:
        stopped = RunStopped("dbt build on target dev was stopped")
        rows = rows_of(result(*nodes), DbtCommand("build"), RunPlace("shop", "x"), Manifest({}), error=stopped)
        return rows[0]["run_outcome"]

    assert outcome() == "cancelled"
    assert outcome(node("a", 0, 1), node("b", 0, 1, status="warn")) == "cancelled"
    assert outcome(node("a", 0, 1, status="error")) == "failed"


def test_in_a_build_a_model_waits_for_the_tests_of_what_it_stands_on() -> None:
    graph = manifest_of(MANIFEST)
    ran = [node("orders", 1, 3), node("orders_ok", 3, 5, "test"), node("report", 6, 7), node("both_ok", 7, 8, "test")]
    assert {key: (wait.waited_for, wait.queue_seconds) for key, wait in waits(ran, graph, is_build=True).items()} == {
        "model.shop.orders": (None, 0.0),
        "test.shop.orders_ok": ("model.shop.orders", 0.0),
        "model.shop.report": ("test.shop.orders_ok", 1.0),
        "test.shop.both_ok": ("model.shop.report", 0.0),
    }
    by_run = waits(ran, graph, is_build=False)["model.shop.report"]
    assert (by_run.waited_for, by_run.queue_seconds) == ("model.shop.orders", 3.0)


def test_what_an_ephemeral_model_reads_stands_beside_it_as_it_has_no_row_of_its_own() -> None:
    manifest = manifest_of(
        {
            "nodes": {
                "model.shop.between": entry(
                    "between", after=("source.shop.raw",), config={"materialized": "ephemeral"}
                ),
                "model.shop.orders": entry(
                    "orders", after=("model.shop.between",), original_file_path="models/marts/orders.sql"
                ),
            }
        }
    )
    (row,) = rows_of(result(node("orders", 0, 2)), DbtCommand("build"), RunPlace("shop", "duckdb"), manifest)
    assert row["depends_on"] == ["model.shop.between", "source.shop.raw"]
    assert row["path"] == "models/marts/orders.sql"


def test_what_ended_after_a_node_began_is_not_what_it_waited_for() -> None:
    ran = [node("orders", 10, 12), node("report", 3, 4)]
    assert waits(ran, manifest_of(MANIFEST), is_build=True)["model.shop.report"].waited_for is None


def test_the_freshness_of_a_source_is_kept_with_its_promise(tmp_path: Path) -> None:
    path = tmp_path / "sources.json"
    source = {
        "unique_id": "source.shop.raw.orders",
        "max_loaded_at": "2026-01-31T10:00:00+00:00",
        "snapshotted_at": "2026-01-31T12:00:01Z",
        "max_loaded_at_time_ago_in_s": 7201.0,
        "criteria": {"warn_after": {"count": 1, "period": "hour"}, "error_after": {"count": None, "period": None}},
    }
    path.write_text(json.dumps({"metadata": {"generated_at": "2026-01-31T12:00:02Z"}, "results": [source]}))
    checked = result(node("raw.orders", 0, 1, "source", status="warn"), command="dbt source freshness")
    found = Artifacts(tmp_path).sources(since=checked.started_at)
    (row,) = rows_of(checked, DbtCommand("source freshness"), RunPlace("shop", "x"), Manifest({}), found)
    assert row["max_loaded_at"] == datetime(2026, 1, 31, 10)
    assert (row["age_seconds"], row["warn_after_seconds"], row["error_after_seconds"]) == (7201.0, 3600.0, None)
    assert Artifacts(tmp_path).sources(since=AT + timedelta(minutes=1)) == {}, "another run wrote it"
    assert Artifacts(tmp_path / "none").sources() == {}
