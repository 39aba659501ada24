"""Each check on a history that was made up: what is healthy, what is not, and what could not be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.history import health_rules as health_checks
from flows.history.health_rules import FAILED, NOT_RUN, PASSED, WARNED, Finding, duration, schedule_lateness
from flows.history.health_settings import Health, load_health
from flows.history.rows import Row
from tests.support.history_runs import AT, node, run, stored_together

NOW = AT + timedelta(hours=1)
HOUR = 3600.0


def judged(folder: Path, name: str, runs: Sequence[Sequence[Row]], now: datetime = NOW, **limits: Any) -> Finding:
    """Judge one check of health.yml, with some of its limits replaced."""
    check = getattr(load_health(), name).model_copy(update=limits)
    with stored_together(folder, *runs).reading("shop", "dev") as history:
        return health_checks.BY_HISTORY[name](history, check, now)


def source(name: str, hours: float | None, warn: float | None = None, fail: float | None = None) -> Row:
    row = node(
        f"raw.{name}",
        "succeeded" if hours is not None else "failed",
        seconds=0.0,
        kind="source",
        max_loaded_at=None if hours is None else AT - timedelta(hours=hours),
        warn_after_seconds=warn and warn * HOUR,
        error_after_seconds=fail and fail * HOUR,
    )
    return row | {"name": name}


def case(name: str, **fields: Any) -> Row:
    return node(name, kind="test", **fields)


@pytest.mark.parametrize("name", sorted(health_checks.BY_HISTORY))
def test_a_check_without_anything_to_look_at_is_no_success(name: str, tmp_path: Path) -> None:
    finding = judged(tmp_path, name, [])
    learning = name == "model_durations"
    assert finding.outcome == (PASSED if learning else NOT_RUN)
    assert finding.is_healthy is learning


@pytest.mark.parametrize(
    ("sources", "outcome", "item"),
    [
        ([source("a", 1, 2, 24)], PASSED, None),
        ([source("a", 1, 2, 24), source("b", 3, 2, 24)], WARNED, "raw.b is 3 h old, promised 2 h"),
        ([source("a", 25, 2, 24), source("b", 3, 2, 24)], FAILED, "raw.a is 25 h old, promised 2 h"),
        ([source("a", 100, 200)], PASSED, None),
        ([source("a", 300, 200)], WARNED, "raw.a is 12 days old, promised 8 days"),
        ([source("a", 30)], WARNED, "raw.a is 30 h old, promised 24 h"),
        ([source("a", 49)], FAILED, "raw.a is 2 days old, promised 24 h"),
        ([source("a", None, 2, 24), source("b", 1, 2, 24)], NOT_RUN, "raw.a could not be checked (error)"),
        ([source("a", -3, 2, 24)], NOT_RUN, "raw.a is of a moment that is 3 h in the future, promised 2 h"),
    ],
)
def test_sources_are_held_to_their_promise_or_to_the_limits(
    sources: list[Row], outcome: str, item: str | None, tmp_path: Path
) -> None:
    finding = judged(tmp_path, "source_freshness", [run(sources, command="dbt source freshness")])
    assert (finding.outcome, finding.items[0] if finding.items else None) == (outcome, item)


def test_the_last_run_has_to_be_good_and_recent(tmp_path: Path) -> None:
    good = run([node("a")])
    bad = run([node("a", "failed")], AT - timedelta(hours=1), run_error="model a: no such column")
    assert judged(tmp_path / "1", "last_run", [bad, good]).outcome == PASSED
    later = judged(tmp_path / "2", "last_run", [good, run([node("a", "failed")], AT + timedelta(minutes=1))])
    assert (later.outcome, later.found) == (FAILED, "The last run, 59 min ago, failed.")
    assert judged(tmp_path / "3", "last_run", [bad]).items == ("model a: no such column",)
    assert judged(tmp_path / "4", "last_run", [good], AT + timedelta(hours=27)).outcome == WARNED
    assert judged(tmp_path / "5", "last_run", [good], AT + timedelta(hours=49)).outcome == FAILED


def test_a_cancelled_run_neither_hides_nor_is_a_failure(tmp_path: Path) -> None:
    def cancelled(minute: int) -> list[Row]:
        return run([node("a")], AT + timedelta(minutes=minute), run_outcome="cancelled", run_error="was stopped")

    good, bad = run([node("a")]), run([node("a", "failed")])
    after_good = judged(tmp_path / "1", "last_run", [good, cancelled(1), cancelled(2)])
    said = "The last run but 2 that were cancelled, 60 min ago, succeeded."
    assert (after_good.outcome, after_good.found) == (WARNED, said)
    assert judged(tmp_path / "2", "last_run", [bad, cancelled(1)]).outcome == FAILED
    assert judged(tmp_path / "3", "last_run", [cancelled(1)]).outcome == NOT_RUN
    assert judged(tmp_path / "4", "last_run", [good, cancelled(1)], AT + timedelta(hours=49)).outcome == FAILED
    assert judged(tmp_path / "5", "run_success", [good, cancelled(1)]).found == "100.0% of 1 runs succeeded."
    assert judged(tmp_path / "6", "run_success", [bad, cancelled(1)]).outcome == FAILED
    assert judged(tmp_path / "7", "run_success", [cancelled(1)]).outcome == NOT_RUN


def test_one_failing_test_in_many_is_a_warning_and_a_critical_one_is_decisive(tmp_path: Path) -> None:
    tests = [case(f"ok_{number}") for number in range(39)]
    assert judged(tmp_path / "1", "tests", [run(tests)]).found == "100.0% of 39 tests pass."
    warned = judged(tmp_path / "2", "tests", [run([*tests, case("odd", outcome="failed", failures=1200)])])
    assert (warned.outcome, warned.items) == (WARNED, ("odd failed, 1,200 rows",))
    critical = case("money", outcome="failed", is_critical=True)
    finding = judged(tmp_path / "3", "tests", [run([*tests, critical])])
    assert (finding.outcome, finding.items) == (FAILED, ("critical: money failed",))
    warned = case("money", outcome="warned", is_critical=True)
    assert judged(tmp_path / "4", "tests", [run([*tests, warned])]).outcome == FAILED
    skipped = case("money", outcome="skipped", is_critical=True)
    assert judged(tmp_path / "4", "tests", [run([*tests, skipped])]).outcome == FAILED, "it says nothing about the data"


def test_the_last_result_of_a_test_counts_and_one_that_is_gone_does_not(tmp_path: Path) -> None:
    mended = [run([case("a", outcome="failed")]), run([case("a")], AT + timedelta(minutes=5), command="dbt test")]
    assert judged(tmp_path / "1", "tests", mended).outcome == PASSED
    removed = [run([case("a", outcome="failed"), case("b")]), run([case("b")], AT + timedelta(minutes=5))]
    assert judged(tmp_path / "2", "tests", removed).outcome == PASSED, "the last build of everything had it no longer"
    part = [run([case("a", outcome="failed"), case("b")]), run([case("b")], AT + timedelta(minutes=5), selection="b")]
    assert judged(tmp_path / "3", "tests", part).outcome == FAILED, "a build of a part says nothing about the rest"


def test_tests_of_a_tag_or_a_model_may_find_nothing(tmp_path: Path) -> None:
    table = node("fct_payment_reconciliation")
    agrees = case("agrees", tested=[table["unique_id"]])
    versions = case("one_current_version", tags=["scd2"])
    runs = [run([table, agrees, versions, case("other", outcome="failed", failures=9)])]
    assert judged(tmp_path / "1", "reconciliation", runs).outcome == PASSED
    assert judged(tmp_path / "1", "scd2_integrity", runs).found == "1 test found nothing."
    later = AT + timedelta(minutes=5)
    wrong = run([agrees | {"outcome": "failed", "failures": 3}], later, command="dbt test")
    finding = judged(tmp_path / "2", "reconciliation", [*runs, wrong])
    assert (finding.outcome, finding.found) == (FAILED, "1 of 1 tests do not pass; they found 3 rows.")
    skipped = run([versions | {"outcome": "skipped"}], later, command="dbt test")
    assert judged(tmp_path / "3", "scd2_integrity", [*runs, skipped]).outcome == NOT_RUN


def test_the_commands_of_one_flow_run_are_one_run(tmp_path: Path) -> None:
    def day(number: int, outcome: str = "succeeded") -> list[list[Row]]:
        at = AT - timedelta(days=number)
        seeded = run([node("s")], at, command="dbt seed", flow_run_id=f"f{number}")
        return [seeded, run([node("a", outcome)], at + timedelta(minutes=1), flow_run_id=f"f{number}")]

    runs = [rows for number in range(19) for rows in day(number)]
    assert judged(tmp_path / "1", "run_success", runs).found == "100.0% of 19 runs succeeded."
    one_bad = [*runs, *day(19, "failed")]
    assert judged(tmp_path / "2", "run_success", one_bad).outcome == WARNED, "95.0 % is not under 95 %"
    assert judged(tmp_path / "3", "run_success", [*one_bad, *day(20, "failed")]).outcome == FAILED
    assert judged(tmp_path / "3", "run_success", [], NOW + timedelta(days=100)).outcome == NOT_RUN


def test_lag_runs_from_the_load_to_the_first_build_after_it(tmp_path: Path) -> None:
    checked = run([source("a", 3)], command="dbt source freshness")
    staged = node("stg", depends_on=["source.shop.raw.a"])
    mart = node("mart", tags=["marts"], depends_on=["model.shop.stg"], seconds=0.0)

    def built(hours_ago: float) -> list[Row]:
        return run([staged, mart], AT - timedelta(hours=hours_ago))

    quick = judged(tmp_path / "1", "transformation_lag", [checked, built(2), built(1)])
    assert (quick.outcome, quick.found) == (PASSED, "The one model is up to date. The longest lag is 60 min.")
    waiting = judged(tmp_path / "2", "transformation_lag", [checked, built(5)])
    assert (waiting.outcome, waiting.items) == (WARNED, ("mart: the newest load has waited 4 h",))
    assert judged(tmp_path / "2", "transformation_lag", [], AT + timedelta(hours=25)).outcome == FAILED


def counted(*counts: int) -> list[list[Row]]:
    """Return counts of a table, a day apart, the last one at noon."""
    first = AT - timedelta(days=len(counts) - 1)
    return [
        run([node("t", row_count=count) | {"outcome": None}], first + timedelta(days=day), command="row counts")
        for day, count in enumerate(counts)
    ]


@pytest.mark.parametrize(
    ("counts", "outcome"),
    [
        ([100, 101, 99, 102, 100, 101, 103], PASSED),
        ([100, 101, 99, 102, 100, 101, 50], FAILED),
        ([100, 101, 99, 102, 100, 101, 200], FAILED),
        ([100, 110, 90, 112, 88, 105, 160], WARNED),
        ([1000, 1000, 1000, 1000, 1000, 1090], PASSED),
        ([1000, 1000, 1000, 1000, 1000, 1200], FAILED),
        ([100, 200], PASSED),
        ([100, 0], FAILED),
        ([2, 2, 2, 2, 2, 2, 3], PASSED),
    ],
    ids=["steady", "half", "double", "noisy", "small change", "never moved", "learning", "empty", "one more row"],
)
def test_a_row_count_is_compared_with_its_own_past(counts: list[int], outcome: str, tmp_path: Path) -> None:
    assert judged(tmp_path, "row_counts", counted(*counts)).outcome == outcome


def test_a_strange_row_count_says_what_is_usual_and_how_strange(tmp_path: Path) -> None:
    finding = judged(tmp_path, "row_counts", counted(1000, 1010, 990, 1000, 1005, 400))
    assert finding.items == ("t has 400 rows, usually 1,000 (score 80.9)",)
    assert "modified z-score" in finding.method


def test_a_model_that_got_slower_is_found_and_noise_is_not(tmp_path: Path) -> None:
    def builds(name: str, *seconds: float) -> list[list[Row]]:
        return [run([node(name, seconds=s)], AT - timedelta(hours=50 - n)) for n, s in enumerate(seconds)]

    slow = judged(tmp_path / "1", "model_durations", builds("slow", 60, 62, 58, 61, 150, 140, 160))
    assert (slow.outcome, slow.items) == (WARNED, ("slow: 2 min in place of 60 s",))
    once = judged(tmp_path / "2", "model_durations", builds("once", 60, 62, 58, 61, 60, 600, 60))
    assert once.outcome == PASSED, "one slow build is chance"
    tiny = judged(tmp_path / "3", "model_durations", builds("tiny", 0.1, 0.1, 0.1, 0.1, 2, 2, 2))
    assert tiny.outcome == PASSED, "twenty times as slow, and nobody minds"


def test_what_money_depends_on_is_new(tmp_path: Path) -> None:
    models = ("pay", "never")
    finding = judged(tmp_path, "built_recently", [run([node("pay")])], AT + timedelta(hours=30), models=models)
    assert (finding.outcome, finding.items) == (NOT_RUN, ("never has not been built yet", "pay is 30 h old"))
    assert judged(tmp_path, "built_recently", [], models=("pay",)).outcome == PASSED


def test_late_runs_are_those_that_began_late_and_those_that_never_began(tmp_path: Path) -> None:
    check = load_health().schedule_lateness
    assert check
    promised = AT - timedelta(minutes=20)
    late_start = run([node("a")], scheduled_at=promised, flow_run_id="f", flow_started_at=AT)

    def judge(folder: str, runs: Sequence[Sequence[Row]], waiting: Sequence[tuple[str, datetime]] = ()) -> Finding:
        with stored_together(tmp_path / folder, *runs).reading() as history:
            return schedule_lateness(history, check, NOW, waiting)

    assert judge("1", []).outcome == PASSED
    assert judge("1", [late_start]).outcome == WARNED
    stuck = judge("1", [], [("brave-otter", AT - timedelta(minutes=30))])
    assert (stuck.outcome, stuck.items[0]) == (FAILED, "brave-otter should have begun at 11:30 UTC, and is 90 min late")


def test_other_projects_and_targets_are_not_looked_at(tmp_path: Path) -> None:
    elsewhere = [run([node("a", "failed")], target="prod"), run([node("a", "failed")], project="other")]
    assert judged(tmp_path, "last_run", elsewhere).outcome == NOT_RUN


def test_every_check_of_the_file_has_a_judge() -> None:
    assert set(load_health().checks()) == set(Health.model_fields)
    assert set(Health.model_fields) == {*health_checks.BY_HISTORY, "schedule_lateness"}


def test_durations_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (0.5, 45, 130, 7300, 200_000)] == ["0.5 s", "45 s", "2 min", "2 h", "2 days"]


@pytest.mark.parametrize("name", sorted(health_checks.BY_HISTORY))
@pytest.mark.parametrize("kind", ["model", "test", "source"])
def test_rows_with_nothing_but_their_names_are_no_success_and_break_no_check(
    name: str, kind: str, tmp_path: Path
) -> None:
    """Rows of a run that was cut off, or of an older version: every figure of theirs may be missing."""
    kept = ("run_id", "project", "target", "command", "run_started_at", "unique_id", "name", "resource_type", "outcome")
    whole = run([node("fct_payment_reconciliation", kind=kind, tags=["gold", "scd2"])], flow_started_at=None)
    bare = [{column: row[column] for column in kept} for row in whole]
    finding = judged(tmp_path, name, [bare])
    assert "broke" not in finding.found
    if name in ("last_run", "run_success"):
        assert not finding.is_healthy, "a run without an outcome did not end well"


def test_a_scheduled_run_whose_flow_nobody_knows_began_when_dbt_did(tmp_path: Path) -> None:
    lateness = load_health().schedule_lateness
    assert lateness
    for minutes, outcome in ((1, PASSED), (600, FAILED)):
        rows = run([node("a")], flow_started_at=None, scheduled_at=AT - timedelta(minutes=minutes))
        with stored_together(tmp_path / str(minutes), rows).reading("shop", "dev") as history:
            assert schedule_lateness(history, lateness, NOW, []).outcome == outcome
