"""Results of nodes, and what dbt's artifact adds to them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.engine.events import FAILED, SKIPPED, SUCCEEDED, WARNED, NodeEvent
from flows.engine.results import DbtResult, NodeResult, enriched, read_run_results, result_of

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def node(name: str, status: str = "success", **fields: Any) -> NodeResult:
    return NodeResult(f"model.shop.{name}", name, "model", "table", status, AT, AT + timedelta(seconds=2), **fields)


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [(FAILED, "failed"), (WARNED, "warned"), (SKIPPED, "skipped"), (SUCCEEDED, "succeeded"), ({"new word"}, "failed")],
)
def test_a_status_is_one_outcome_and_an_unknown_one_is_never_a_success(statuses: set[str], outcome: str) -> None:
    assert {node("a", status).outcome for status in statuses} == {outcome}


def test_a_clock_that_was_set_back_gives_no_negative_time() -> None:
    backwards = NodeResult("model.a", "a", "model", "table", "success", AT, AT - timedelta(seconds=5))
    assert backwards.seconds == 0.0
    assert node("a").seconds == 2.0


def test_attempts_add_up() -> None:
    event = NodeEvent("model.a", "a", "model", "table", "error", AT, AT)
    first = result_of(event)
    assert (first.attempts, result_of(event, first).attempts) == (1, 2)


def artifact(path: Path, invocation_id: str, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"metadata": {"invocation_id": invocation_id}, "results": list(entries)}))
    return path


def test_results_of_another_invocation_are_ignored(tmp_path: Path) -> None:
    path = artifact(tmp_path / "run_results.json", "yesterday", {"unique_id": "model.shop.a", "message": "old"})
    assert read_run_results(path, "today") == {}
    assert read_run_results(path, None) == {}
    assert set(read_run_results(path, "yesterday")) == {"model.shop.a"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"metadata": {"invocation_id": "i"}, "results": 3}'])
def test_a_missing_or_damaged_artifact_is_no_failure(tmp_path: Path, content: bytes) -> None:
    assert read_run_results(tmp_path / "run_results.json", "i") == {}
    (tmp_path / "run_results.json").write_bytes(content)
    assert read_run_results(tmp_path / "run_results.json", "i") == {}


def test_only_what_did_not_succeed_keeps_a_message() -> None:
    entry = {"message": "SELECT 3", "adapter_response": {"rows_affected": 3, "_message": ""}, "relation_name": '"a"'}
    good, bad, untold = enriched(
        [node("a"), node("b", "error"), node("c")], {"model.shop.a": entry, "model.shop.b": entry | {"failures": 4}}
    )
    assert (good.message, good.relation, good.adapter_response) == ("", '"a"', {"rows_affected": 3})
    assert (bad.message, bad.failures) == ("SELECT 3", 4)
    assert untold == node("c")


def test_counts_name_every_outcome_and_of_keeps_the_order() -> None:
    nodes = (node("a", "error"), node("b"), node("c", "skipped"), node("d", "fail"))
    result = DbtResult("dbt build", "dev", nodes, AT, AT + timedelta(seconds=9), Path("/t"), Path("/r"))
    assert result.counts() == {"succeeded": 1, "warned": 0, "failed": 2, "skipped": 1}
    assert [found.name for found in result.of("failed", "skipped")] == ["a", "c", "d"]
    assert result.seconds == 9.0
