"""dbt's log lines: those that dbt 1.11 really wrote, and anything else a child can print."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.engine.context.events import FINISHED, STARTED, DbtEvent, name_in, parse_line
from infrastructure.plain_text import plain

# Of a build and of a freshness check by dbt 1.11.16, one line of every kind.
LINES = (Path(__file__).parent / "dbt_lines.jsonl").read_bytes().splitlines()


def parsed() -> list[DbtEvent]:
    return [event for line in LINES if (event := parse_line(line))]


def ended() -> dict[str, str]:
    return {
        event.node.unique_id.partition(".")[2]: event.node.status
        for event in parsed()
        if event.node and event.node.status != STARTED
    }


def test_every_line_keeps_name_level_text_and_time() -> None:
    for line, event in zip(LINES, parsed(), strict=True):
        info = json.loads(line)["info"]
        assert (event.name, event.level, event.text) == (info["name"], info["level"], plain(info["msg"]))
        assert event.at == datetime.fromisoformat(info["ts"])
        assert event.invocation_id == info["invocation_id"]


def test_nodes_end_as_dbt_says() -> None:
    assert ended() == {
        "outcomes.readings": "success",
        "outcomes.good": "success",
        "outcomes.unique_good_id.c91342c84f": "warn",
        "outcomes.not_null_good_id.cf53bc9459": "pass",
        "outcomes.wrong_sql": "error",
        "outcomes.doubled.twice_the_amount": "pass",
        "outcomes.doubled.wrong_expectation": "fail",
        "outcomes.unique_untested_ids_id.9386211e53": "fail",
        "outcomes.after_wrong_sql": "skipped",
        "outcomes.board": "no-op",
        "orchard.orchard-on-run-start-0": "success",
        "orchard.deliveries.crates": "warn",
        "orchard.trees_over_time": "success",
    }
    assert set(ended().values()) <= FINISHED


def test_a_node_has_its_own_times_in_utc_and_the_rows_a_test_found() -> None:
    nodes = {(event.node.name, event.node.status): event.node for event in parsed() if event.node}
    for node in nodes.values():
        assert node.started_at.utcoffset() == timedelta(0)
        assert (node.finished_at is None) == (node.status == STARTED)
        assert node.finished_at is None or node.finished_at >= node.started_at
    assert nodes["unique_untested_ids_id", "fail"].failures == 1
    assert nodes["good", "success"].failures is None
    assert nodes["good", "success"].materialized == "table"
    assert nodes["good", STARTED].total == 14


def test_the_summary_at_the_end_ends_no_node_again() -> None:
    about = [event for event in parsed() if event.name.startswith("RunResult")]
    assert {event.unique_id for event in about} >= {"model.outcomes.wrong_sql"}
    assert not [event for event in about if event.node]


def test_a_line_that_is_not_json_is_kept_as_text() -> None:
    event = parse_line(b"Traceback (most recent call last):\xff\n")
    assert event is not None
    assert (event.name, event.level, event.text) == ("", "info", "Traceback (most recent call last):�")
    assert event.at.tzinfo is UTC
    assert parse_line(b" \r\n") is None


@given(st.binary())
def test_no_bytes_are_too_odd(line: bytes) -> None:
    event = parse_line(line)
    assert event is None or (event.node is None and isinstance(event.text, str))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["info", "data", "node_info", "name", "ts", "msg", "level"]), inner)
        ),
    )
)
def test_no_json_is_too_odd(document: Any) -> None:
    line = b"{" + orjson.dumps(document) + b"}" if not isinstance(document, dict) else _dumps(document)
    assert parse_line(line) is not None


@pytest.mark.parametrize("line", LINES[:12], ids=lambda line: json.loads(line)["info"]["name"])
def test_a_field_of_another_type_or_missing_is_no_accident(line: bytes) -> None:
    """dbt's log is documented, not promised: a changed field may cost an event, never the run."""
    original = json.loads(line)
    for path in _paths(original):
        for value in (None, "x", -1, [], {}, True):
            changed = json.loads(line)
            _set(changed, path, value)
            event = parse_line(orjson.dumps(changed))
            assert isinstance(event, DbtEvent)
            assert isinstance(event.text, str), f"{path} = {value!r}"
            assert event.node is None or event.node.status == STARTED or event.node.finished_at is not None


def _dumps(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document)


def _paths(document: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, value in document.items():
        found.append((*prefix, key))
        if isinstance(value, dict):
            found += _paths(value, (*prefix, key))
    return found


def _set(document: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


@pytest.mark.parametrize(
    ("unique_id", "name"),
    [
        ("model.shop.orders", "orders"),
        ("model.shop.orders.v2", "orders.v2"),
        ("seed.shop.a.b", "a.b"),
        ("source.shop.raw.visits", "raw.visits"),
        ("test.shop.assert_totals", "assert_totals"),
        ("test.shop.unique_orders_v1.2_id.0a1b2c3d4e", "unique_orders_v1.2_id"),
        ("unit_test.shop.orders.a_refund_is_negative", "a_refund_is_negative"),
    ],
)
def test_a_node_of_which_only_the_unique_id_is_known_has_the_name_that_dbt_gives_it(unique_id: str, name: str) -> None:
    assert name_in(unique_id) == name
