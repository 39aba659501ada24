"""Options of dbt's own: what each does to the tables, to what `--changed` and `--resume` believe, and on which dbt."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions, fitting, require_known
from flows.engine.context.project import read_project
from flows.engine.process.listing import list_nodes
from infrastructure.errors import ConfigError
from infrastructure.program import Program
from tests.support.engine_house import House
from tests.support.engines import engine_or_skip
from tests.support.projects import profile_in

YESTERDAY = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
FILES = {
    "dbt_project.yml": "name: house\nprofile: house\nflags: {send_anonymous_usage_stats: false}\n",
    "seeds/events.csv": f"id,happened\n1,2026-01-01 06:00:00\n2,2026-01-02 06:00:00\n3,{YESTERDAY} 06:00:00\n",
    "seeds/seeds.yml": "seeds: [{name: events, config: {event_time: happened, column_types: {happened: timestamp}}}]\n",
    "models/copied.sql": "{{ config(materialized='table') }} select * from {{ ref('events') }}",
    "models/counted.sql": "{{ config(materialized='table') }} select count(*) as n from {{ ref('copied') }}",
    "models/daily.sql": "{{ config(materialized='incremental', incremental_strategy='microbatch', lookback=0,"
    " event_time='happened', batch_size='day', begin='2026-01-01') }} select id, happened from {{ ref('events') }}",
    "models/models.yml": "models: [{name: copied, config: {event_time: happened},"
    " columns: [{name: id, data_tests: [unique]}]}]\n",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Return a project that is built; the tests work on copies."""
    house = House(tmp_path_factory.mktemp("options"), "own", None)
    for name, text in FILES.items():
        house.write(name, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIBUTARY_STATE", str(house.folder / "state"))
        asked(house, RunOptions(exclude="daily"))
    return house


@pytest.fixture
def house(built: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    # In the place where it was built: its state belongs to that.
    kept = tmp_path / "kept"
    shutil.copytree(built.folder, kept)
    monkeypatch.setenv("TRIBUTARY_STATE", str(built.folder / "state"))
    yield built
    shutil.rmtree(built.folder)
    shutil.copytree(kept, built.folder)


def asked(house: House, options: RunOptions, verb: str = "build") -> DbtResult:
    """Run a command as a task does: with the flags of its options."""
    given = options.command(verb)
    shown = {"select": given.select, "exclude": given.exclude, "full_refresh": given.full_refresh}
    return house.run(verb, options=options, flags=given.flags, **shown)


def ran(result: DbtResult) -> set[str]:
    return {node.name.split("_copied")[0] for node in result.nodes if node.status != "reused"}


CHANGED = RunOptions(exclude="daily", changed=True)


def test_tables_that_were_built_empty_are_empty_and_count_as_not_built(house: House) -> None:
    assert ran(asked(house, CHANGED)) == set()
    asked(house, replace(CHANGED, changed=False, empty=True))
    assert (house.value("select count(*) from copied"), house.value("select n from counted")) == (0, 0)
    again = asked(house, CHANGED)
    assert ran(again) >= {"copied", "counted", "unique"}
    assert (house.value("select count(*) from copied"), house.value("select n from counted")) == (3, 3)


def test_a_sample_has_the_rows_of_its_window_and_counts_as_not_built(house: House) -> None:
    asked(house, replace(CHANGED, changed=False, sample="3 days"))
    assert (house.value("select count(*) from copied"), house.value("select n from counted")) == (1, 1)
    assert ran(asked(house, CHANGED)) >= {"copied", "counted"}
    assert house.value("select n from counted") == 3


def test_a_window_of_time_builds_its_batches_alone_and_counts_as_not_built(house: House) -> None:
    window = RunOptions(select="daily", event_time_start="2026-01-01", event_time_end="2026-01-02")
    asked(house, window)
    assert house.value("select list(id) from daily") == [1]
    assert "daily" in ran(asked(house, RunOptions(select="daily", changed=True)))


def test_a_resume_has_to_have_the_same_rows_and_may_run_in_another_manner(house: House) -> None:
    house.write("models/counted.sql", "{{ config(materialized='table') }} select no_such from {{ ref('copied') }}")
    empty = RunOptions(exclude="daily", empty=True)
    with pytest.raises(Exception, match="no_such"):
        asked(house, empty)
    house.write("models/counted.sql", FILES["models/counted.sql"])
    with pytest.raises(ConfigError, match=r"what dbt is given besides was \[\"--empty\"\] then and is not given now"):
        asked(house, replace(empty, empty=False, resume=True))
    resumed = asked(house, replace(empty, resume=True, threads=1, fail_fast=True))
    assert [node.name for node in resumed.nodes if node.attempts] and house.value("select n from counted") == 0


def test_failing_rows_are_kept_in_a_table(house: House) -> None:
    asked(house, RunOptions(select="copied", store_failures=True), verb="test")
    assert house.value("select count(*) from main_dbt_test__audit.unique_copied_id") == 0


def test_a_question_about_a_selection_has_only_the_options_that_it_may_have(house: House) -> None:
    options = RunOptions(select="copied", empty=True, store_failures=True, indirect_selection="empty")
    profile = profile_in(house.folder)
    assert list_nodes(options.command("build"), read_project(house.project), profile)[0] == ["model.house.copied"]
    assert fitting(DbtCommand("test", flags=("--empty", "--sample", "1 day", "--store-failures", "--other"))).flags == (
        "--store-failures",
        "--other",
    )


@pytest.mark.parametrize(
    ("version", "options", "said"),
    [
        ("1.8.10", {"sample": "1 day"}, "has no --sample for dbt build: dbt 1 has it from 1.10 on. Leave --sample out"),
        ("1.8.10", {"event_time_start": "2026-01-01", "event_time_end": "2026-01-02"}, "--event-time-start for dbt"),
        ("2.0.0-alpha.4", {"sample": "1 day"}, "has no --sample"),
        ("1.8.10", {"empty": True, "store_failures": True, "indirect_selection": "empty"}, None),
        ("2.0.0-alpha.4", {"empty": True, "event_time_start": "2026-01-01", "event_time_end": "2026-01-02"}, None),
    ],
)
def test_what_a_dbt_lacks_is_said_before_anything_starts(
    version: str, options: dict[str, Any], said: str | None
) -> None:
    command = RunOptions(**options).command("build")
    if said is None:
        require_known(command, Program("/opt/dbt", version), "dev")
        return
    with pytest.raises(ConfigError, match=said):
        require_known(command, Program("/opt/dbt", version), "dev")


@pytest.mark.parametrize("name", [pytest.param("1.8", marks=pytest.mark.slow), "2"])
def test_what_another_dbt_makes_of_them(name: str, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an alpha takes and does nothing of is refused; the rest does what it says."""
    engine = engine_or_skip(name)
    for variable, value in engine.environment.items():
        monkeypatch.setenv(variable, value)
    other = replace(house, dbt=str(engine.program))
    with pytest.raises(ConfigError, match="has no --sample"):
        asked(other, RunOptions(select="copied", sample="3 days"))
    asked(other, RunOptions(select="copied", empty=True))
    assert house.value("select count(*) from copied") == 0


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("2026-01-02", None, "--event-time-start was given without --event-time-end"),
        ("2026-01-02", "2026-01-01", "is not before --event-time-end"),
        ("yesterday", "2026-01-01", "--event-time-start was given 'yesterday'. Write a day or a time"),
    ],
)
def test_a_window_that_is_none_is_refused(start: str | None, end: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RunOptions(event_time_start=start, event_time_end=end)
