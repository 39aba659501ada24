"""Results as people and programs read them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson

from flows.engine.artifacts.results import Stopped
from flows.engine.ledger.failures import log_of
from flows.report.artifacts import (
    artifact_key,
    as_document,
    counts_sentence,
    rows_affected,
    slowest,
    summary_markdown,
    table_rows,
)
from tests.support.results import MIXED, node, result


def test_a_sentence_counts_what_there_is() -> None:
    assert counts_sentence(MIXED) == "2 succeeded, 1 warned, 1 failed, 1 skipped"
    assert counts_sentence(result()) == "nothing to do"


def test_a_table_shows_failures_first_and_then_what_was_slow() -> None:
    rows = table_rows(MIXED)
    assert [row["node"] for row in rows] == ["wrong", "kept_back", "odd", "slow", "quick"]
    assert rows[0] == {
        "node": "wrong",
        "attempts": 1,
        "type": "model",
        "outcome": "failed",
        "seconds": 0.1,
        "rows": "",
        "message": "Binder Error: no column | here",
    }
    assert (rows[2]["rows"], rows[3]["rows"]) == (3, 1200)


def test_a_table_of_very_many_nodes_keeps_the_failures() -> None:
    many = result(*(node(f"n{number}") for number in range(2500)), node("wrong", "error"))
    rows = table_rows(many)
    assert len(rows) == 2000
    assert rows[0]["node"] == "wrong"


def test_a_summary_has_what_failed_what_did_not_run_and_what_was_slow() -> None:
    text = summary_markdown(MIXED)
    assert text.startswith(
        "## wrong failed\n\ndbt build on `dev`: 2 succeeded, 1 warned, 1 failed, 1 skipped. 5 nodes in"
    )
    assert text.index("```text\nBinder Error:\n  no column | here\n```\n") < text.index("### Warnings"), "cause first"
    assert "### Warnings (1)\n\n- `odd`: `Got 3 results`" in text
    assert "### Not run (1)\n\n- `kept_back`: Something upstream of it failed." in text
    assert text.index("| `slow` | 7.00 |") < text.index("| `quick` | 1.00 |")
    assert text.endswith(f"Log: `{log_of(Path('/run'))}`")


def test_a_summary_of_very_many_failures_stays_short() -> None:
    text = summary_markdown(result(*(node(f"n{number}", "error", message="x" * 900) for number in range(500))))
    assert "and 477 more" in text
    assert len(text) < 10_000


def test_a_summary_of_nothing_says_why() -> None:
    assert "matched nothing" in summary_markdown(result(notes=("The selection matched nothing",)))


def test_a_summary_says_what_a_stopped_run_left_undone() -> None:
    stopped = Stopped(done_count=5, cut_off=("slow_one",), not_begun_count=2, not_begun=("late", "later"))
    text = summary_markdown(replace(MIXED, stopped=stopped))
    assert (
        "### Stopped: 5 of 8 nodes were done, 1 cut off (slow_one), 2 not begun (late, later)\n\n"
        "Run again with `resume` to do the rest."
    ) in text
    assert str(Stopped(0)) == "no node had begun"
    assert str(Stopped(3, not_begun_count=4)) == "3 of 7 nodes were done, 4 not begun"


def test_a_summary_says_what_was_tried_again_and_why() -> None:
    text = summary_markdown(result(node("busy", attempts=3, earlier_messages=("deadlock", "too many\nconnections"))))
    assert "### Retried (1)\n\n- `busy`: succeeded at attempt 3, after: `too many connections`" in text


def test_an_artifact_key_is_in_prefects_letters_and_stays_the_same() -> None:
    assert artifact_key(result(target="Prod_EU"), "summary") == "dbt-build-prod-eu-summary"


def test_the_slowest_come_first_and_unknown_rows_are_none() -> None:
    assert [found.name for found in slowest(MIXED, 2)] == ["slow", "quick"]
    assert rows_affected(MIXED.nodes[1]) == 1200
    assert rows_affected(MIXED.nodes[0]) is None
    assert rows_affected(node("x", adapter_response={"rows_affected": -1})) is None


def test_a_document_for_programs_counts_over_all_commands() -> None:
    document = orjson.loads(orjson.dumps(as_document([MIXED, result(node("more"))]), default=str))
    assert document["counts"] == {"succeeded": 3, "warned": 1, "failed": 1, "skipped": 1}
    assert [command["command"] for command in document["commands"]] == ["dbt build", "dbt build"]
    assert document["commands"][0]["nodes"][2] == {
        "unique_id": "model.shop.wrong",
        "outcome": "failed",
        "status": "error",
        "seconds": 0.1,
        "attempts": 1,
        "earlier_messages": [],
        "failures": None,
        "relation": None,
        "message": "Binder Error:\n  no column | here",
        "adapter_response": {},
    }
