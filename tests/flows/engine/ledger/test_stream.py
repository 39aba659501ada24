"""What a ledger says, as the events that sinks are told of."""

from __future__ import annotations

from typing import Any

import pytest

from flows.engine.ledger.addresses import address_of, plain_relation
from flows.engine.ledger.stream import (
    NodeEnded,
    NodesPlanned,
    NodesReused,
    NodeStarted,
    RunEnded,
    RunEvent,
    RunStarted,
    StreamReader,
)
from tests.support.ledgers import AT, ended, ending, head, learned, started


def read(*entries: dict[str, Any]) -> list[RunEvent]:
    reader = StreamReader("20261128T120000")
    return [event for entry in entries for event in reader.take(entry)] + list(reader.over())


def ends(events: list[RunEvent]) -> dict[str, tuple[str, int]]:
    return {e.result.name: (e.result.status, e.number) for e in events if isinstance(e, NodeEnded)}


def test_a_node_has_ended_when_its_figures_are_known() -> None:
    reader = StreamReader("20261128T120000")
    before = [event for entry in (head(), started("a"), ended("a")) for event in reader.take(entry)]
    assert [type(event) for event in before] == [RunStarted, NodeStarted]

    (known,) = reader.take(learned(a={"response": {"rows_affected": 3, "query_id": "q1", "bytes_processed": 9}}))

    assert isinstance(known, NodeEnded)
    assert (known.result.row_count, known.result.query_id, known.result.bytes_processed) == (3, "q1", 9)
    assert known.number == 1


def test_a_run_begins_with_what_was_planned_and_what_is_used_again() -> None:
    planned = {"kind": "selected", "nodes": ["model.shop.a"]}
    reused = {"kind": "reused", "nodes": {"model.shop.b": "nothing changed since yesterday"}}
    run, plan, again, *_ = read(head(resumes="20261127T120000"), planned, reused)
    assert isinstance(run, RunStarted)
    assert (run.command, run.project, run.target, run.resumes) == ("dbt build", "shop", "dev", "20261127T120000")
    assert plan == NodesPlanned(("model.shop.a",))
    assert again == NodesReused({"model.shop.b": "nothing changed since yesterday"})


def test_each_attempt_of_a_node_is_told_of() -> None:
    events = read(
        head(),
        started("a"),
        ended("a", "error"),
        learned(a={"message": "connection lost"}),
        started("a"),
        ended("a"),
        learned(a={}),
        ending(),
    )
    told = [(e.result.outcome, e.result.message, e.number) for e in events if isinstance(e, NodeEnded)]
    assert told == [("failed", "connection lost", 1), ("succeeded", "", 2)]


def test_what_was_skipped_has_no_start_of_its_own() -> None:
    assert ends(read(head(), ended("a", "skipped"), learned(a={}), ending(is_ok=False))) == {"a": ("skipped", 0)}
    tried_before = read(head(), started("a"), ended("a", "error"), learned(a={}), ended("a", "skipped"), learned(a={}))
    assert [e.number for e in tried_before if isinstance(e, NodeEnded)] == [1, 0]


def test_an_end_without_a_start_gets_one() -> None:
    _, start, end, *_ = read(head(), ended("a"), learned(a={}), ending())
    assert isinstance(start, NodeStarted) and isinstance(end, NodeEnded)
    assert (start.number, end.number) == (1, 1)


def test_a_killed_run_is_aborted_and_what_it_had_done_is_not() -> None:
    *_, done, cut, last = read(head(), started("a"), ended("a"), started("b"))
    assert ends([done, cut]) == {"a": ("success", 1), "b": ("cut off", 1)}
    assert isinstance(last, RunEnded)
    assert (last.ending, last.message) == ("aborted", "The process of the run was killed.")


def test_a_stopped_run_says_what_it_left() -> None:
    stopped = {"kind": "stopped", "at": AT, "undone": "1 of 2 nodes were done, 1 cut off (b)"}
    *_, last = read(head(), started("b"), stopped)
    assert last == RunEnded(AT, "aborted", "The run was stopped: 1 of 2 nodes were done, 1 cut off (b).")


def test_what_nothing_proves_has_failed() -> None:
    not_run = {"kind": "not run", "nodes": {"model.shop.a": "nothing proves what was done"}}
    *_, end, last = read(head(), started("a"), ended("a"), learned(), not_run, ending(is_ok=False))
    assert isinstance(end, NodeEnded)
    assert (end.result.outcome, end.result.message) == ("failed", "nothing proves what was done")
    assert last == RunEnded(AT, "failed", "1 of 1 nodes failed: a.")


def test_an_error_of_the_command_is_its_end() -> None:
    *_, last = read(head(), {"kind": "error", "at": AT, "message": "The disk is full."})
    assert last == RunEnded(AT, "failed", "The disk is full.")


def test_more_entries_only_add_events() -> None:
    entries = [
        head(),
        started("a"),
        started("b"),
        ended("a"),
        ended("c", "skipped"),
        learned(a={}, c={}),
        ended("b", "error"),
        learned(b={"message": "no"}),
        ending(is_ok=False),
        {"kind": "recorded"},
    ]
    whole = read(*entries)
    for count in range(len(entries)):
        reader = StreamReader("20261128T120000")
        part = [event for entry in entries[:count] for event in reader.take(entry)]
        assert part == whole[: len(part)]


def test_what_a_resumed_run_had_done_before_is_not_told_again() -> None:
    taken_over = ended("a") | {"attempt": 0}
    assert ends(read(head(), taken_over, started("b"), ended("b"), learned(b={}), ending())) == {"b": ("success", 1)}


@pytest.mark.parametrize(
    ("output", "address"),
    [
        ({"type": "postgres", "host": "db", "port": 5433}, "postgres://db:5433"),
        ({"type": "postgres", "host": "db"}, "postgres://db:5432"),
        ({"type": "snowflake", "account": "acme-eu1"}, "snowflake://acme-eu1"),
        ({"type": "bigquery", "project": "p"}, "bigquery"),
        ({"type": "duckdb", "path": "/data/dev.duckdb"}, "duckdb:///data/dev.duckdb"),
        ({"type": "duckdb", "path": "md:shop?motherduck_token=geheim"}, "duckdb://md:shop"),
        ({"type": "redshift", "host": "c.eu"}, "redshift://c.eu:5439"),
        ({"type": "sqlserver", "server": "s"}, "mssql://s:1433"),
        ({"type": "exotic", "host": "h", "port": 1}, "exotic://h:1"),
        ({"type": "exotic", "host": "{{ env_var('DBT_ENV_SECRET_HOST') }}"}, "exotic://"),
        ({"type": "exotic", "host": "name:geheim@h"}, "exotic://"),
    ],
)
def test_an_address_is_what_openlineage_calls_it_and_holds_no_secret(output: dict[str, Any], address: str) -> None:
    assert address_of(output) == address


@pytest.mark.parametrize("relation", ['"shop"."main"."orders"', "`shop`.`main`.`orders`", "[shop].[main].[orders]"])
def test_a_relation_is_named_without_the_quotes_of_its_warehouse(relation: str) -> None:
    assert plain_relation(relation) == "shop.main.orders"
