"""What the report says of a history that was made up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from flows.history.rows import Row
from flows.report.html.contents import Contents, critical_path, is_hook, read_contents
from flows.report.html.summary import overview_markdown
from flows.report.html.words import ago, clock, headline, share, size
from tests.support.history_runs import AT, node, run, stored_together

NOW = AT + timedelta(hours=1)


def contents(folder: Path, *runs: Sequence[Row], **options: Any) -> Contents:
    with stored_together(folder, *runs).reading("shop", "dev") as history:
        return read_contents(history, "shop", "dev", NOW, 30, **options)


def test_a_history_without_runs_says_so(tmp_path: Path) -> None:
    empty = contents(tmp_path)
    assert (empty.status, headline(empty), empty.critical_path) == ("unknown", "Nothing has been run yet", [])
    assert "Nothing has been run yet" in overview_markdown(empty)


def test_a_failure_is_dated_from_the_first_time_after_it_was_last_good(tmp_path: Path) -> None:
    outcomes = ["failed", "succeeded", "failed", "warned", "failed"]
    runs = [run([node("a", outcome), node("b")], AT - timedelta(days=4 - day)) for day, outcome in enumerate(outcomes)]
    said = contents(tmp_path, *runs)
    (failing,) = said.failing
    assert (failing["name"], failing["outcome"], failing["times"]) == ("a", "failed", 3)
    assert failing["since"] == AT - timedelta(days=2), "a warning in between was not well either"
    assert (said.status, headline(said)) == ("failing", "1 node failing")
    assert "| a | failed | Jan 29, 12:00 UTC | 3 |  |" in overview_markdown(said)


def test_what_was_mended_by_a_later_run_of_a_part_is_not_failing(tmp_path: Path) -> None:
    later = run([node("a")], AT + timedelta(minutes=5), selection="a")
    assert contents(tmp_path, run([node("a", "failed"), node("b")]), later).failing == []


def test_sources_and_warnings_are_part_of_the_status(tmp_path: Path) -> None:
    def freshness(outcome: str) -> list[Row]:
        source = node("raw.x", outcome, kind="source", age_seconds=9000.0, warn_after_seconds=7200.0)
        return run([source], AT + timedelta(minutes=1), command="dbt source freshness")

    late = contents(tmp_path / "1", run([node("a")]), freshness("warned"))
    assert (late.status, headline(late)) == ("warnings", "1 source late")
    old = contents(tmp_path / "2", run([node("a", "warned")]), freshness("failed"))
    assert (old.status, headline(old)) == ("failing", "1 source too old, 1 node with a warning")
    good = contents(tmp_path / "3", run([node("a")]), freshness("succeeded"))
    assert (good.status, headline(good)) == ("healthy", "All is well")


def test_a_cancelled_run_is_said_and_counts_neither_as_good_nor_as_bad(tmp_path: Path) -> None:
    good = [run([node("a")], AT + timedelta(minutes=minute)) for minute in range(3)]
    cancelled = run([node("a")], AT + timedelta(minutes=5), run_outcome="cancelled", run_error="was stopped")
    found = contents(tmp_path / "1", *good, cancelled)
    assert (found.status, headline(found)) == ("warnings", "The last run was cancelled")
    assert (found.success["total"], found.success["good"]) == (3, 3)
    assert "newest last: ✓✓✓–" in overview_markdown(found)
    # A row of an older version, which had no such outcome.
    assert (
        contents(tmp_path / "2", *good, run([node("a")], AT + timedelta(minutes=3), run_outcome=None)).success["total"]
        == 4
    )


def test_the_critical_path_follows_what_each_node_waited_for(tmp_path: Path) -> None:
    slow = node("slow", seconds=9.0)
    quick = node("quick", seconds=1.0)
    last = node("last", seconds=2.0, start=10.0, waited_for=slow["unique_id"], queue_seconds=1.0)
    alone = node("alone", seconds=11.0)
    said = contents(tmp_path, run([slow, quick, last, alone]))
    assert [each["name"] for each in said.critical_path] == ["slow", "last"]
    assert [(each["start"], each["end"]) for each in said.critical_path] == [(0.0, 9.0), (10.0, 12.0)]


def test_hooks_are_neither_the_critical_path_nor_part_of_it(tmp_path: Path) -> None:
    slow = node("slow", seconds=9.0, start=5.0)
    before = node("shop-on-run-start-0", kind="operation", seconds=5.0)
    after = node("shop-on-run-end-0", kind="operation", seconds=30.0, start=14.0)
    said = contents(tmp_path, run([before, slow, after]))
    assert [each["name"] for each in said.critical_path] == ["slow"]
    assert [each["name"] for each in said.nodes if is_hook(each)] == ["shop-on-run-start-0", "shop-on-run-end-0"]
    assert [each["name"] for each in said.models] == ["slow"]
    assert (said.nodes[0]["start"], said.nodes[1]["start"]) == (0.0, 5.0), "the time of the run, hooks with it"


def test_a_circle_in_a_damaged_history_is_gone_round_once() -> None:
    first = {"unique_id": "a", "resource_type": "model", "waited_for": "b", "finished_at": AT}
    second = first | {"unique_id": "b", "waited_for": "a", "finished_at": AT + timedelta(seconds=1)}
    assert critical_path([first, second]) == [first, second]


def test_what_a_resumed_run_took_over_is_not_in_its_time(tmp_path: Path) -> None:
    taken_over = node("done", start=-3600.0)
    assert [each["name"] for each in contents(tmp_path, run([taken_over, node("rest")])).nodes] == ["rest"]


def test_models_that_got_slower_are_marked_by_the_rule_of_the_health_check(tmp_path: Path) -> None:
    seconds = [30.0, 31.0, 29.0, 30.0, 95.0, 97.0, 96.0]
    runs = [
        run([node("m", seconds=each), node("t", kind="test")], AT - timedelta(days=7 - n))
        for n, each in enumerate(seconds)
    ]
    (model,) = contents(tmp_path, *runs).models
    assert (model["builds"], model["usual_seconds"], model["last_seconds"]) == (7, 31.0, 96.0)
    assert [each["seconds"] for each in model["trend"]] == seconds, "oldest first"
    assert model["regression"] == "96 s in place of 30 s"


def test_cost_is_what_the_warehouse_billed_at_the_price_that_was_given(tmp_path: Path) -> None:
    tebibyte = 2**40
    nodes = [node("dear", bytes_processed=tebibyte, bytes_billed=2 * tebibyte), node("free")]
    (row,) = contents(tmp_path, run(nodes), price_per_tebibyte=6.25).costs
    assert (row["name"], row["bytes_billed"], row["price"]) == ("dear", 2 * tebibyte, 12.5)
    assert contents(tmp_path).costs[0]["price"] is None


def test_figures_are_said_as_people_say_them() -> None:
    assert [clock(s) for s in (None, 0, 0.35, 12.34, 59.97, 185, 7800, 200_000)] == [
        "", "0 s", "0.35 s", "12.3 s", "1 min 00 s", "3 min 05 s", "2 h 10 min", "2 days 7 h",
    ]  # fmt: skip
    assert [share(*pair) for pair in ((0, 0), (3, 3), (2999, 3000), (1, 3))] == ["–", "100 %", "99.9 %", "33.3 %"]
    assert [size(count) for count in (None, 999, 1500, 2.5e12)] == ["", "999 B", "1.5 kB", "2.5 TB"]
    assert [ago(AT - timedelta(seconds=s), AT) for s in (5, 61, 7300, 90_000)] == [
        "just now", "1 minute ago", "2 hours ago", "1 day ago",
    ]  # fmt: skip
