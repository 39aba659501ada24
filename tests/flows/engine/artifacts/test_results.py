"""Results of nodes, and what dbt's artifact adds to them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.results import DbtResult, NodeResult, enriched, result_of
from flows.engine.context.events import FAILED, SKIPPED, STARTED, SUCCEEDED, WARNED, NodeEvent
from flows.engine.ledger.attempt import Attempt
from flows.engine.ledger.undone import stopped_of

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


HOOK = NodeEvent("operation.shop.start-0", "start-0", "operation", "view", STARTED, AT, total=1)
MODEL = NodeEvent("model.shop.a", "a", "model", "table", STARTED, AT, total=3)


def ended(event: NodeEvent) -> NodeEvent:
    return replace(event, status="success", finished_at=AT)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "no node had begun"),
        ([HOOK], "no node had begun, while start-0 ran"),
        ([HOOK, ended(HOOK)], "no node had begun"),
        ([HOOK, ended(HOOK), MODEL], "0 of 3 nodes were done, 1 cut off (a), 2 not begun"),
        ([HOOK, ended(HOOK), MODEL, ended(MODEL)], "1 of 3 nodes were done, 2 not begun"),
        ([replace(MODEL, total=1), replace(ended(MODEL), total=1), HOOK], "1 of 1 nodes were done, while start-0 ran"),
    ],
)
def test_hooks_are_no_nodes_of_a_run_that_was_stopped(events: list[NodeEvent], said: str) -> None:
    """Their own count of themselves, 1 of 1, was once taken for that of the nodes, and the run for a whole one."""
    attempt, results = Attempt(), dict[str, NodeResult]()
    for event in events:
        attempt.take_node(event)
        if event.finished_at:
            results[event.unique_id] = result_of(event)
    assert attempt.left_undone
    assert str(stopped_of(results, attempt, None)) == said
    # Where dbt says which nodes it is going to run, those that have not begun are named.
    known = stopped_of(results, attempt, {"model.shop.a": "a", "model.shop.z": "z"})
    assert known.not_begun == (("z",) if attempt.begun else ("a", "z"))


def test_attempts_add_up() -> None:
    event = NodeEvent("model.a", "a", "model", "table", "error", AT, AT)
    first = result_of(event)
    assert (first.attempts, result_of(event, first).attempts) == (1, 2)


def artifact(path: Path, invocation_id: str, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"metadata": {"invocation_id": invocation_id}, "results": list(entries)}))
    return path


def test_results_of_another_invocation_are_ignored(tmp_path: Path) -> None:
    artifact(tmp_path / "run_results.json", "yesterday", {"unique_id": "model.shop.a", "message": "old"})
    assert Artifacts(tmp_path).run_results("today") == {}
    assert Artifacts(tmp_path).run_results(None) == {}
    assert set(Artifacts(tmp_path).run_results("yesterday")) == {"model.shop.a"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"metadata": {"invocation_id": "i"}, "results": 3}'])
def test_a_missing_or_damaged_artifact_is_no_failure(tmp_path: Path, content: bytes) -> None:
    assert Artifacts(tmp_path).run_results("i") == {}
    (tmp_path / "run_results.json").write_bytes(content)
    assert Artifacts(tmp_path).run_results("i") == {}


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
