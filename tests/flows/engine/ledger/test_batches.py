"""Models in batches of time: what failed is told, and tried again batch by batch."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from flows.engine.artifacts.results import unbuilt_batches
from flows.engine.context.command import DbtCommand
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.ledger.failures import is_passing
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from infrastructure.errors import DbtRunFailed
from tests.support.projects import profile_in

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
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
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
