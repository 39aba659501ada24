"""The files: whole or not there, safe beside each other, put together, dropped when they are old."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pytest

from flows.history import store as store_module
from flows.history.query import ask
from flows.history.store import HistoryStore, history_store
from infrastructure.errors import ConfigError, UpstreamUnavailable
from tests.support.history_runs import AT, NOW, node, run, stored


def run_ids(store: HistoryStore) -> list[str]:
    return [row[0] for row in ask(store, "select run_id from runs order by 1").rows]


def test_a_run_is_one_file_with_a_row_per_node(tmp_path: Path) -> None:
    store = stored(tmp_path, run([node("a", depends_on=["model.shop.b"]), node("b", "failed", tags=["x", "y"])]))
    (file,) = store.files()
    assert Path(file).parent == tmp_path / "history" / "shop" / "dev"
    assert [path for path in Path(file).parent.iterdir() if str(path) != file] == [], "no draft is left"
    answer = ask(store, "select name, outcome, tags, depends_on, run_outcome from nodes order by name")
    assert answer.rows == (
        ("a", "succeeded", [], ["model.shop.b"], "failed"),
        ("b", "failed", ["x", "y"], [], "failed"),
    )
    assert ask(store, "select nodes, failed, seconds from runs").rows == ((2, 1, 60.0),)


def test_a_run_without_nodes_counts_as_a_run(tmp_path: Path) -> None:
    store = stored(tmp_path, run([], run_outcome="failed", run_error="dbt could not connect"))
    assert ask(store, "select run_outcome, run_error, nodes from runs").rows == (
        ("failed", "dbt could not connect", 0),
    )
    assert ask(store, "from nodes").rows == ()


def test_an_empty_history_can_be_asked(tmp_path: Path) -> None:
    assert ask(HistoryStore(str(tmp_path / "none")), "select count(*) from runs").rows == ((0,),)


def test_runs_that_end_at_the_same_moment_do_not_undo_each_other(tmp_path: Path) -> None:
    store = HistoryStore(str(tmp_path))
    runs = [run([node("a")], AT, run_id=f"run-{number}") for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.write, runs))
    assert len(run_ids(store)) == 20


def test_a_bucket_is_written_and_read_through_fsspec() -> None:
    store = HistoryStore(f"memory://{uuid4().hex}/history")
    store.write(run([node("a")]))
    store.write(run([node("a")], AT + timedelta(hours=1)))
    assert len(store.files()) == 2
    assert len(run_ids(store)) == 2
    assert store.compact(now=NOW + timedelta(days=2)).made == 1
    assert len(run_ids(store)) == 2
    assert store.compact(now=NOW + timedelta(days=3)).removed == 2
    assert len(store.files()) == 1
    assert len(run_ids(store)) == 2


def test_files_of_past_days_are_put_together_and_go_only_when_nobody_reads_them_any_more(tmp_path: Path) -> None:
    runs = [run([node("a"), node("b")], AT - timedelta(hours=hours)) for hours in (50, 40, 30, 2)]
    store = stored(tmp_path, *runs)
    before = run_ids(store)
    done = store.compact(separate_hours=24, now=NOW)
    assert (done.found, done.made, done.removed) == (4, 1, 0)
    assert len(store.files()) == 5
    assert run_ids(store) == before, "a run that stands in two files is read once"
    assert ask(store, "select count(*) from nodes").rows == ((8,),)
    assert store.compact(separate_hours=24, now=NOW).made == 0, "nothing is left to do"
    done = store.compact(separate_hours=24, now=NOW + timedelta(hours=2))
    assert (done.found, done.made, done.removed) == (5, 0, 3)
    assert run_ids(store) == before
    done = store.compact(separate_hours=24, now=NOW + timedelta(days=1))
    assert done.made == 1, "what was put together takes in what came later"
    assert run_ids(store) == before


@pytest.mark.parametrize("small", [0, 4_000_000])
def test_a_history_of_one_target_is_the_same_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(store_module, "_SMALL_BYTES", small)
    runs = [run([node("a")], AT - timedelta(hours=hours), target=target) for hours in (50, 40, 2) for target in "xy"]
    store = stored(tmp_path, *runs)
    store.compact(separate_hours=24, now=NOW)
    with store.reading("shop", "x") as history:
        kind = history.execute("select table_type from information_schema.tables where table_name = 'history'")
        assert kind.fetchall() == [("LOCAL TEMPORARY" if small else "VIEW",)]
        found = history.execute("select target, count(*), count(distinct run_id) from nodes group by all").fetchall()
    assert found == [("x", 3, 3)]


def test_a_compaction_that_was_cut_off_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run([node("a")], AT - timedelta(days=days), target=target) for days in (40, 41, 2, 3) for target in "xy"]
    store = stored(tmp_path, *runs)
    before = ask(store, "select target, run_id from runs order by all").rows
    copy, calls = store_module._copy, []

    def cut_off(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError("the machine went away")
        copy(*arguments)

    monkeypatch.setattr(store_module, "_copy", cut_off)
    with pytest.raises(UpstreamUnavailable, match="the machine went away"):
        store.compact(now=NOW)
    assert ask(store, "select target, run_id from runs order by all").rows == before
    monkeypatch.undo()
    for days in range(4):
        store.compact(now=NOW + timedelta(days=days))
    assert ask(store, "select target, run_id from runs order by all").rows == before
    assert len(store.files()) == 4, "two targets, two months"


def test_two_compactions_at_once_lose_nothing(tmp_path: Path) -> None:
    store = stored(tmp_path, *(run([node("a")], AT - timedelta(hours=30 + number)) for number in range(6)))
    before = run_ids(store)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: store.compact(now=NOW), range(2)))
    assert run_ids(store) == before
    for days in (1, 2):
        store.compact(now=NOW + timedelta(days=days))
    assert run_ids(store) == before


def test_runs_are_kept_as_long_as_configured(tmp_path: Path) -> None:
    store = stored(tmp_path, *(run([node("a")], AT - timedelta(days=days)) for days in (500, 399, 1)))
    assert store.compact(keep_days=400, now=NOW).removed == 1
    assert len(run_ids(store)) == 2


def test_a_file_from_before_a_column_was_thought_of_is_read(tmp_path: Path) -> None:
    store = stored(tmp_path, run([node("a")]))
    old = tmp_path / "history" / "shop" / "dev" / "20250101T000000Z-old.parquet"
    duckdb.sql(
        "copy (select 'old' as run_id, 'shop' as project, 'dev' as target, 'a' as unique_id) "
        f"to '{old}' (format parquet)"
    )
    assert ask(store, "select run_id, seconds from nodes where run_id = 'old'").rows == (("old", None),)
    assert len(run_ids(store)) == 2


def test_a_name_with_a_quote_or_a_slash_stays_in_its_folder(tmp_path: Path) -> None:
    store = stored(tmp_path / "it's here", run([node("a")], project="../o'clock", target="a/b"))
    (file,) = store.files()
    assert Path(file).is_relative_to(tmp_path / "it's here" / "history")
    assert run_ids(store)


def test_a_query_reaches_nothing_but_the_history(tmp_path: Path) -> None:
    store = stored(tmp_path, run([node("a")]))
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for query in (f"from '{secret}'", f"copy (select 1) to '{tmp_path}/out.csv'", "set enable_external_access = true"):
        with pytest.raises(ConfigError, match="The query failed"):
            ask(store, query)
    assert not (tmp_path / "out.csv").exists()


def test_a_wrong_query_is_answered_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'The query failed\. Binder Error.*"nam".*Candidate.*"name"') as caught:
        ask(stored(tmp_path, run([node("a")])), "select nam from nodes")
    assert "\n" not in str(caught.value)


def test_an_address_that_cannot_be_used_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fsspec does not know nowhere://"):
        history_store({"TRIBUTARY_HISTORY": "nowhere://bucket/x"}).write(run([node("a")]))
    (tmp_path / "file").write_text("")
    with pytest.raises(UpstreamUnavailable, match="could not be reached"):
        HistoryStore(str(tmp_path / "file" / "below")).write(run([node("a")]))
    assert history_store({"TRIBUTARY_STATE": str(tmp_path)}).url == str(tmp_path / "history")
