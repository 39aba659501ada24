"""What a warehouse says a node cost, as people read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from flows.engine.artifacts.results import NodeResult
from flows.report.adapter_costs import cost_columns, cost_sentence, figures_of, readable_bytes

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def node(name: str, **response: Any) -> NodeResult:
    return NodeResult(f"model.shop.{name}", name, "model", "table", "success", NOW, NOW, adapter_response=response)


# As dbt-bigquery 1.12.1 and dbt-snowflake 1.12.3 give them.
ORDERS = node("orders", rows_affected=7, bytes_processed=3 << 30, bytes_billed=4 << 30, slot_ms=90500, job_id="j-1")
STAGED = node("staged", code="CREATE VIEW", bytes_processed=0, bytes_billed=0, slot_ms=None, job_id="j-2")
COPIED = node("copied", code="SUCCESS", rows_affected=-1, query_id="01b2-0815")


def test_the_costs_of_a_command_are_added_up() -> None:
    sentence = cost_sentence([ORDERS, STAGED])

    assert sentence == (
        "Reported by the warehouse: 3.0 GiB processed, 4.0 GiB billed, 90.5 slot seconds; most by `orders`."
    )


def test_a_warehouse_that_says_nothing_of_costs_gets_no_sentence() -> None:
    assert cost_sentence([COPIED, node("local", _message="OK")]) == ""


def test_a_figure_that_is_not_known_is_left_empty() -> None:
    assert figures_of(COPIED).rows is None
    assert cost_columns(COPIED) == {
        "bytes processed": "",
        "bytes billed": "",
        "slot ms": "",
        "query": "01b2-0815",
    }
    assert cost_columns(STAGED)["bytes processed"] == 0


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (1023, "1,023 bytes"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")]
)
def test_bytes_are_shown_in_the_unit_that_people_read(count: int, text: str) -> None:
    assert readable_bytes(count) == text
