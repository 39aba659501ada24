"""Models in batches of time: what failed is told, and tried again batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from flows.engine.artifacts.manifest import Node
from flows.engine.artifacts.manifest_file import manifest_of
from flows.engine.artifacts.results import DbtResult, unbuilt_batches
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import LEDGER, dbt_log
from flows.engine.ledger.batches import batches_told, offset, window_flags
from flows.engine.ledger.failures import is_passing
from flows.engine.ledger.ledger import read_ledger
from flows.engine.ledger.resume import logged_lines
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from infrastructure.errors import DbtRunFailed
from tests.support.engines import OTHER_ENGINES, engine_or_skip
from tests.support.projects import profile_in
from tests.support.stores import put_state

HOURS = "select i as id, timestamp '2026-01-01' + i * interval 1 hour as happened from range(96) t(i)"
# Fails as a database does, and once only where there is a file: a lock that somebody else has let go by then.
DAYS = """
{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='happened', batch_size='day',
          begin='2026-01-01', lookback=0, concurrent_batches=false) }}
select id, happened, case
  when happened::date in (date '2026-01-02', date '2026-01-03')
    and (select count(*) from main.attempts) < {{ var('good_from') }}
  then error({{ "'" ~ var('said') ~ "'" }} || chr(27) || '[31m') else 'x' end as x
from {{ ref('hours') }}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put_state(monkeypatch, tmp_path / "state")
    project = tmp_path / "days"
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text(
        "name: days\nversion: '1.0'\non-run-start: [\"insert into main.attempts values (1)\"]\n"
    )
    (project / "models" / "hours.sql").write_text("{{ config(materialized='table', event_time='happened') }}\n" + HOURS)
    (project / "models" / "days.sql").write_text(DAYS)
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("create table main.attempts (i int)")
    return tmp_path


def build(folder: Path, said: str, good_from: int) -> None:
    window = ("--event-time-start", "2026-01-01", "--event-time-end", "2026-01-05")
    command = DbtCommand("build", vars={"said": said, "good_from": good_from}, flags=window)
    retries = Retries(sleep=lambda seconds: None)
    run_dbt(command, RunContext(read_project(folder / "days"), profile_in(folder)), retries=retries)


def rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        return connection.execute(sql).fetchall()


def test_a_failed_batch_is_told_in_the_words_of_the_database(folder: Path) -> None:
    with pytest.raises(DbtRunFailed) as failed:
        build(folder, "the 2nd is no day", 100)
    (node,) = failed.value.result.of("failed")
    assert node.status == "partial success"
    assert node.message.startswith("PARTIAL SUCCESS (2/4)\n\n")
    assert "the 2nd is no day" in node.message and "\x1b" not in node.message
    assert "the 2nd is no day" in str(failed.value)
    assert rows(folder, "select count(*) from main.attempts") == [(1,)], "what does not pass is not tried again"


def test_batches_that_failed_for_a_passing_reason_are_built_again_and_no_others(folder: Path) -> None:
    build(folder, "Could not set lock on file", 2)
    assert rows(folder, "select happened::date, count(*) from main.days group by 1 order by 1") == [
        (day, 24) for (day,) in rows(folder, "select distinct happened::date from main.hours order by 1")
    ]
    assert rows(folder, "select count(*) from main.attempts") == [(2,)]
    (ran,) = (folder / "state").rglob("run.log")
    assert ran.read_text().count("START batch") == 4 + 2


def test_a_failure_of_batches_passes_only_when_each_does() -> None:
    from tests.support.results import node

    lock, wrong = "IO Error: Could not set lock on file", "Binder Error: no x"
    assert is_passing(node("n", "partial success", message=f"PARTIAL SUCCESS (1/3)\n\n{lock}\n\n{lock} x"), "duckdb")
    assert not is_passing(node("n", "partial success", message=f"PARTIAL SUCCESS (1/3)\n\n{lock}\n\n{wrong}"), "duckdb")


def test_only_models_of_which_some_batches_went_well_are_taken_up() -> None:
    batch = ["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]
    some, none, all_of_them = ([batch], [batch]), ([], [batch]), ([batch], [])
    details = {
        name: {"batch_results": {"successful": good, "failed": bad}}
        for name, (good, bad) in {"some": some, "none": none, "all": all_of_them}.items()
    }
    assert unbuilt_batches({**details, "no batches": {"batch_results": None}, "other": {}}) == {
        "some": {"successful": [batch], "failed": [batch]}
    }


# Batches of an hour up to now: which ones they are is a matter of when a run begins.
RECENT = """
{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='happened', batch_size='hour',
          begin=env_var('BEGIN'), lookback=1, concurrent_batches=false) }}
select id, happened from {{ ref('ticks') }}
"""
TICKS = """
{{ config(materialized='table', event_time='happened') }}
select i as id, cast(now() at time zone 'UTC' as timestamp) - i * interval 10 minute as happened from range(144) t(i)
"""


def hours_of(folder: Path) -> list[datetime]:
    found = rows(folder, "select distinct date_trunc('hour', happened) from main.recent order by 1")
    return [hour.replace(tzinfo=UTC) for (hour,) in found if isinstance(hour, datetime)]


def move_back(result: Any, by: timedelta) -> datetime:
    """Have a run have begun earlier, which is all that a resume knows of its time; return when it began then."""
    ledger = result.run_path / LEDGER
    entries = list(read_ledger(ledger))
    entries[0]["at"] -= by
    ledger.write_bytes(b"".join(orjson.dumps(entry) + b"\n" for entry in entries))
    at = entries[0]["at"]
    assert isinstance(at, datetime)
    return at


def recent_hours(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Callable[..., DbtResult]:
    """Make a project of four batches up to now; return what builds it by a dbt."""
    dbt = None
    if name != "own":
        engine = engine_or_skip(name)
        dbt = str(engine.program)
        for variable, value in engine.environment.items():
            monkeypatch.setenv(variable, value)
    monkeypatch.setenv("BEGIN", f"{datetime.now(UTC) - timedelta(hours=3):%Y-%m-%dT%H:%M:%S}")
    models = folder / "days" / "models"
    (folder / "days" / "dbt_project.yml").write_text("name: days\nversion: '1.0'\n")
    (models / "hours.sql").unlink()
    (models / "days.sql").unlink()
    (models / "ticks.sql").write_text(TICKS)
    (models / "recent.sql").write_text(RECENT)

    def run(**options: Any) -> DbtResult:
        profile = profile_in(folder)
        context = RunContext(read_project(folder / "days"), replace(profile, dbt=dbt))
        return run_dbt(
            RunOptions(**options).command("build"), context, RunOptions(**options), retries=Retries(run_limit=0)
        )

    return run


@pytest.mark.parametrize("name", ["own", *OTHER_ENGINES])
def test_a_resume_belongs_to_the_window_of_the_run_that_it_resumes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    models = folder / "days" / "models"
    run = recent_hours(folder, monkeypatch, name)
    run()
    # The model was not begun, as what it reads failed.
    (models / "ticks.sql").write_text(TICKS + "where i = error('gone')")
    with pytest.raises(DbtRunFailed) as failed:
        run()
    began_at = move_back(failed.value.result, timedelta(hours=5))
    rows(folder, "delete from main.recent")
    (models / "ticks.sql").write_text(TICKS)
    resumed = run(resume=True)
    assert hours_of(folder) == [offset(began_at, "hour", -1), offset(began_at, "hour", 0)]
    assert next(read_ledger(resumed.run_path / LEDGER))["window_at"] == began_at


@pytest.mark.parametrize("name", ["own", *OTHER_ENGINES])
def test_a_full_refresh_that_goes_on_keeps_the_batches_that_it_has_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = recent_hours(folder, monkeypatch, name)
    run()
    third = "date_trunc('hour', now() at time zone 'UTC') - interval 1 hour = date_trunc('hour', happened)"
    (folder / "days" / "models" / "recent.sql").write_text(
        RECENT + f"where case when {third} then error('no') else true end"
    )
    with pytest.raises(DbtRunFailed) as failed:
        run(full_refresh=True)
    (node,) = failed.value.result.of("failed")
    assert node.name == "recent"
    (folder / "days" / "models" / "recent.sql").write_text(RECENT)
    run(full_refresh=True, resume=True)
    hours = hours_of(folder)
    assert hours == [offset(hours[-1], "hour", number - 3) for number in range(4)]


def test_the_batches_of_a_run_that_was_killed_are_those_that_its_lines_tell_of(folder: Path) -> None:
    with pytest.raises(DbtRunFailed) as failed:
        build(folder, "the 2nd is no day", 100)
    result = failed.value.result
    (told,) = [entry["of"] for entry in read_ledger(result.run_path / LEDGER) if entry["kind"] == "batches"]
    assert set(told) == {"model.days.days"}
    lines = logged_lines(dbt_log(result.run_path))
    by_lines = orjson.loads(orjson.dumps(batches_told(lines, result.artifacts)))
    for outcome in ("successful", "failed"):
        assert sorted(by_lines["model.days.days"][outcome]) == sorted(told["model.days.days"][outcome])
    # A batch that had only begun is not built, and neither are those behind it.
    until = next(number for number, line in enumerate(lines) if line.name == "LogBatchResult") + 2
    cut = batches_told(lines[:until], result.artifacts)["model.days.days"]
    assert (len(cut["successful"]), len(cut["failed"])) == (1, 3)


def test_the_window_holds_all_batches_that_are_left() -> None:
    at = datetime(2026, 3, 1, 22, 37, tzinfo=UTC)

    def model(name: str, size: str, lookback: int = 1, begin: str = "2026-01-01") -> Node:
        strategy = {"incremental_strategy": "microbatch", "batch_size": size, "lookback": lookback, "begin": begin}
        entry = {"name": name, "resource_type": "model", "config": strategy}
        return manifest_of({"nodes": {f"model.a.{name}": entry}}).nodes[f"model.a.{name}"]

    def window(*nodes: Node, built: tuple[str, ...] = (), **unbuilt: Any) -> tuple[str, ...]:
        of = {f"model.a.{name}": {"failed": [found]} for name, found in unbuilt.items()}
        return window_flags(nodes, of, at, [f"model.a.{name}" for name in built])[1::2]

    hour, month = model("hour", "hour"), model("month", "month", 2)
    assert window(hour, built=("hour",)) == ("2026-03-01T21:00:00", "2026-03-01T23:00:00")
    assert window(hour) == ("2026-01-01T00:00:00", "2026-03-01T23:00:00")
    assert window(month, built=("month",)) == ("2026-01-01T00:00:00", "2026-04-01T00:00:00")
    failed = ["2026-03-01T19:00:00+00:00", "2026-03-01T20:00:00+00:00"]
    assert window(hour, hour=failed) == ("2026-03-01T19:00:00", "2026-03-01T20:00:00")
    assert window(hour, model("day", "day", 0), built=("day",), hour=failed) == (
        "2026-03-01T00:00:00",
        "2026-03-02T00:00:00",
    )
    assert offset(datetime(2026, 1, 31, tzinfo=UTC), "month", -1) == datetime(2025, 12, 1, tzinfo=UTC)
    assert offset(at, "year", 1) == datetime(2027, 1, 1, tzinfo=UTC)
    assert window_flags([], {}, at, ()) == ()
