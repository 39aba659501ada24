"""What is tried again, how often and how patiently."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.manifest_file import manifest_of
from flows.engine.artifacts.results import NodeResult
from flows.engine.ledger.retries import Retries, with_what_they_kept_back

AT = datetime(2026, 1, 31, tzinfo=UTC)
LOCKED = "IO Error: Could not set lock on file"


def node(name: str, status: str, message: str = "", attempts: int = 1) -> NodeResult:
    kind = "test" if name.startswith("test_") else "model"
    return NodeResult(f"{kind}.shop.{name}", name, kind, "table", status, AT, AT, message, attempts=attempts)


def graph(edges: dict[str, list[str]]) -> Manifest:
    """Return a graph of models and of tests, whose names say what they are."""

    def unique_id(name: str) -> str:
        return f"{'test' if name.startswith('test_') else 'model'}.shop.{name}"

    nodes: dict[str, Any] = {
        unique_id(name): {
            "name": name,
            "resource_type": unique_id(name).partition(".")[0],
            "fqn": ["shop", name],
            "depends_on": {"nodes": [unique_id(parent) for parent in parents]},
        }
        for name, parents in edges.items()
    }
    return manifest_of({"nodes": nodes})


def test_a_node_is_tried_again_for_a_passing_reason_until_its_limit() -> None:
    results = [
        node("locked", "error", LOCKED),
        node("locked_again", "error", LOCKED, attempts=2),
        node("locked_for_good", "error", LOCKED, attempts=3),
        node("wrong", "error", "Binder Error"),
        node("test_locked", "error", LOCKED),
        node("test_failed", "fail", LOCKED),
        node("fine", "success"),
    ]
    assert Retries(limit=2).to_try_again(results, "duckdb") == [
        "model.shop.locked",
        "model.shop.locked_again",
        "test.shop.test_locked",
    ]
    assert Retries(limit=0).to_try_again(results, "duckdb") == []


def test_what_it_kept_back_runs_with_it_unless_something_else_failed_for_good() -> None:
    shop = graph(
        {
            "locked": [],
            "wrong": [],
            "on_locked": ["locked"],
            "on_top": ["on_locked"],
            "on_both": ["locked", "wrong"],
            "on_wrong": ["wrong"],
            "fine": [],
        }
    )
    results = [
        node("locked", "error", LOCKED),
        node("wrong", "error", "Binder Error"),
        *(node(name, "skipped") for name in ("on_locked", "on_top", "on_both", "on_wrong")),
        node("fine", "success"),
    ]
    assert with_what_they_kept_back(["model.shop.locked"], results, shop) == [
        "model.shop.locked",
        "model.shop.on_locked",
        "model.shop.on_top",
    ]


def test_a_failing_test_goes_on_keeping_back_what_stands_on_its_model() -> None:
    shop = graph({"good": [], "test_good": ["good"], "locked": [], "on_both": ["good", "locked"], "on_good": ["good"]})
    kept_back = [node("on_both", "skipped"), node("on_good", "skipped")]
    failed = [node("good", "success"), node("test_good", "fail"), node("locked", "error", LOCKED), *kept_back]
    assert with_what_they_kept_back(["model.shop.locked"], failed, shop) == ["model.shop.locked"]
    # A test that could not be run for a passing reason is run again, and what waited for it after it.
    unsure = [node("good", "success"), node("test_good", "error", LOCKED), *kept_back]
    assert with_what_they_kept_back(["test.shop.test_good"], unsure, shop) == [
        "test.shop.test_good",
        "model.shop.on_both",
        "model.shop.on_good",
    ]


@pytest.mark.parametrize(("attempt", "least", "most"), [(2, 8, 10), (4, 32, 40), (30, 60, 75)])
def test_delays_double_with_some_jitter_up_to_the_longest(attempt: int, least: float, most: float) -> None:
    retries = Retries(first_delay_seconds=8.0, longest_delay_seconds=60.0)
    assert all(least <= retries.delay_seconds(attempt) <= most for _ in range(50))
