"""What a person is told of a failed dbt command: the causes, what they hold up, where to look, what to type."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.engine.artifacts.artifacts import Limit, SourceAge
from flows.engine.artifacts.manifest_file import manifest_of
from flows.engine.artifacts.results import DbtResult, FailingRows
from flows.engine.ledger.explanation import Explanation, explanation_of, line_of, table_lines
from tests.support.results import node, result

SQL = "with paid as (\n    select id, amuont\n    from shop.orders\n)\nselect * from paid\n"
BINDER = (
    "Runtime Error in model orders (models/orders.sql)\n"
    '  Binder Error: Referenced column "amuont" not found in FROM clause!\n'
    '  Candidate bindings: "amount"\n'
    "  compiled code at target/run/shop/models/orders.sql"
)


def entry(unique_id: str, *parents: str, **fields: Any) -> dict[str, Any]:
    kind, _, name = unique_id.partition(".")
    made = {"name": name.split(".")[-1], "resource_type": kind, "depends_on": {"nodes": list(parents)}}
    return {unique_id: {**made, "original_file_path": f"models/{made['name']}.sql", **fields}}


MANIFEST = manifest_of(
    {
        "nodes": entry("model.shop.orders")
        | entry("model.shop.sales", "model.shop.orders")
        | entry("model.shop.board", "model.shop.sales")
        | entry("model.shop.people")
        | entry("test.shop.unique_people", "model.shop.people", attached_node="model.shop.people")
        | entry("test.shop.sales_add_up", "model.shop.sales")
        | entry("model.shop.letters", "model.shop.people"),
        "sources": entry("source.shop.erp.events", loader="airbyte", meta={"airbyte_connection_id": "c0ffee"}),
    }
)
FAILED = result(
    node("unique_people", "fail", kind="test", failures=2, message="Got 2 results, configured to fail if != 0"),
    node("orders", "error", message=BINDER),
    node("letters", "skipped"),
    node("board", "skipped"),
    node("sales", "skipped"),
    node("sales_add_up", "skipped", kind="test"),
)


def explained(of: DbtResult = FAILED, **fields: Any) -> Explanation:
    compiled = {"model.shop.orders": (Path("/t/compiled/shop/models/orders.sql"), SQL)}
    given: dict[str, Any] = {"ages": {}, "compiled": compiled, "log": Path("/run/run.log")} | fields
    return explanation_of(of, MANIFEST, **given)


def test_the_cause_that_holds_up_most_is_first_with_the_databases_words_once_its_line_and_what_waits() -> None:
    orders, unique = explained().failed
    assert orders.title == "orders failed"
    assert orders.lines() == [
        'Binder Error: Referenced column "amuont" not found in FROM clause!',
        'Candidate bindings: "amount"',
        "SQL: /t/compiled/shop/models/orders.sql:2",
        "Not built because of it: 2 (board, sales), and 1 test.",
    ]
    assert unique.title == "unique_people failed: 2 rows"
    assert unique.lines() == ["Not built because of it: 1 (letters)."]


def test_a_state_message_begins_with_the_cause_and_shows_no_rows() -> None:
    found = explained().with_rows({"test.shop.unique_people": FailingRows(("id",), (("7",),))}, {})
    assert found.message() == (
        'orders failed: Binder Error: Referenced column "amuont" not found in FROM clause! '
        'Candidate bindings: "amount". '
        "SQL: /t/compiled/shop/models/orders.sql:2. Not built because of it: 2 (board, sales), and 1 test. "
        "dbt build failed on target dev for 2 of 6 nodes: orders, unique_people. 4 were skipped because of them. "
        "Log: /run/run.log"
    )


def test_rows_and_why_there_are_none_are_told_with_their_test() -> None:
    rows = FailingRows(("id", "email"), (("7", "•••"), ("12", "•••")))
    _, shown = explained().with_rows({"test.shop.unique_people": rows}, {}).failed
    assert shown.lines()[:3] == ["id  email", "7   •••", "12  •••"]
    _, hidden = explained().with_rows({}, {"test.shop.unique_people": "Its rows are not shown."}).failed
    assert hidden.lines()[0] == "Its rows are not shown."


def test_a_stale_source_says_which_how_old_how_old_it_may_be_and_what_loads_it() -> None:
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    age = SourceAge("", at - timedelta(hours=5), at, 5 * 3600.0, Limit(1, "hour"), Limit(2, "hour"))
    stale = replace(result(node("erp.events", "error", kind="source")), command="dbt source freshness")
    (found,) = explained(stale, ages={"source.shop.erp.events": age}).failed
    assert found.title == "source erp.events is too old"
    assert found.lines() == [
        "Its newest row is of 2026-01-31 07:00 UTC, 5 hours ago; "
        "its freshness: warn after 1 hour, error after 2 hours.",
        "Loaded by airbyte, Airbyte connection c0ffee.",
    ]


def test_of_many_failures_the_first_are_told_whole_and_the_rest_by_name() -> None:
    many = explained(result(*(node(f"n{number}", "error", message="no column") for number in range(300))))
    text = "\n".join(many.markdown())
    assert text.count("#### n") == 2, "the first one's title is that of the page"
    assert "- n3 failed: no column" in text
    assert "- and 277 more" in text
    assert len(many.as_document()["failed"]) == 300, "programs get all"


def test_a_document_has_the_same_as_data_and_is_json() -> None:
    document = replace(
        explained(), link="http://x/runs", commands=(("Do the rest", "flows run --resume"),)
    ).as_document()
    first = document["failed"][0]
    assert (first["compiled"], first["line"]) == ("/t/compiled/shop/models/orders.sql", 2)
    assert (first["not_built"], first["untested_count"]) == (["board", "sales"], 1)
    assert document["next"] == [{"purpose": "Do the rest", "command": "flows run --resume"}]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (BINDER, 2),
        ('column "amuont" does not exist\nLINE 4:     select id, amuont\n                       ^', 2),
        ("SQL compilation error: error line 3 at position 15 invalid identifier 'AMUONT'", 2),
        ("Unrecognized name: amuont at [3:16]", 2),
        ("Object 'SHOP.ORDERS' does not exist or not authorized.", 3),
        ("Parser Error: syntax error\n(in run/shop/models/orders.sql:4:2)", 4),
        ("division by zero", None),
        ("(in run/shop/models/orders.sql:40:2)", None),
    ],
)
def test_the_line_is_the_one_that_the_database_complains_of_and_none_is_made_up(said: str, line: int | None) -> None:
    assert line_of(said, SQL) == line


def test_the_stack_of_macros_is_not_the_databases_sentence() -> None:
    said = (
        "Compilation Error in model orders (models/orders.sql)\n  No contract.\n  \n"
        "  > in macro a (m/a.sql)\n  > called by model orders (models/orders.sql)"
    )
    (found,) = explained(result(node("orders", "error", message=said)), compiled={}).failed
    assert found.said == ("No contract.",)


def test_a_value_that_is_long_does_not_break_the_table() -> None:
    head, row = table_lines(FailingRows(("id", "note"), (("1", "line\nbreak " * 9),)))
    assert (head, len(row)) == ("id  note", 28)
