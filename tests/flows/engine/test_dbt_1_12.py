"""What dbt 1.12 added and what would go wrong without a word: vars.yml, `on_error: continue`, reused, a user's home."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import duckdb
import pytest

from flows.engine.artifacts.fingerprints import Inputs
from flows.engine.artifacts.results import DbtResult, result_of
from flows.engine.changed.last_success import Built, LastSuccess
from flows.engine.changed.run_memory import Done, after
from flows.engine.context.command import DbtCommand
from flows.engine.context.events import NodeEvent, parse_line
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import LEDGER, State
from flows.engine.ledger.ledger import Ledger
from flows.engine.ledger.resume import fingerprint, interrupted_run
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from flows.engine.sinks.task_runs import FlowRun, Position, finished_event
from flows.report.artifacts import counts_sentence
from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.profiles import Profile
from infrastructure.program import find_program
from tests.support.engines import engine_or_skip

OWN = find_program()
pytestmark = pytest.mark.skipif(OWN.numbers < (1, 12), reason=f"{OWN} has none of it")

PASSING = "select error('IO Error: Could not set lock on file') as version"


class House:
    """A project with two tables, the second of which is built whatever comes of the first."""

    def __init__(self, folder: Path, dbt: str | None = None) -> None:
        self.folder = folder
        output = {"type": "duckdb", "path": str(folder / "w.duckdb"), "schema": "main", "threads": 1}
        self.profile = Profile("dev", "house", output, {}, dbt=dbt)
        self.write("dbt_project.yml", "name: house\nprofile: house\nflags: {send_anonymous_usage_stats: false}\n")
        self.first("select 1 as version")
        self.write("models/second.sql", "{{ config(materialized='table') }} select version from {{ ref('first') }}")
        self.write("models/third.sql", "{{ config(materialized='table') }} select version from {{ ref('second') }}")

    def write(self, name: str, text: str) -> None:
        path = self.folder / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def first(self, sql: str) -> None:
        self.write("models/first.sql", "{{ config(materialized='table', on_error='continue') }} " + sql)

    def build(self, sleep: Callable[[float], None] = lambda _: None, **options: bool) -> DbtResult:
        run_of = RunContext(read_project(self.folder / "project"), self.profile)
        return run_dbt(DbtCommand("build"), run_of, RunOptions(**options), retries=Retries(limit=1, sleep=sleep))

    def versions(self) -> list[object]:
        with duckdb.connect(str(self.folder / "w.duckdb"), read_only=True) as connection:
            names = ("first", "second", "third")
            return [connection.execute(f"select version from main.{name}").fetchall()[0][0] for name in names]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    return House(tmp_path)


def test_a_variable_in_vars_yml_is_seen_when_it_changes(house: House) -> None:
    house.write("vars.yml", "vars: {colour: red}\n")
    house.first("select '{{ var(\"colour\") }}' as version")
    house.build()
    house.write("vars.yml", "vars: {colour: blue}\n")
    house.build(changed=True)
    assert house.versions() == ["blue"] * 3
    assert not house.build(changed=True).nodes


def test_a_retry_builds_again_what_was_built_on_the_old_table(house: House) -> None:
    house.build()
    house.first(PASSING)
    result = house.build(sleep=lambda _: house.first("select 2 as version"))
    assert house.versions() == [2, 2, 2]
    assert {node.name: node.outcome for node in result.nodes} == dict.fromkeys(
        ("first", "second", "third"), "succeeded"
    )


def test_a_resume_builds_again_what_was_built_on_the_old_table(house: House) -> None:
    house.build()
    house.first("select no_such_column as version")
    with pytest.raises(DbtRunFailed) as caught:
        house.build()
    assert isinstance(caught.value.result, DbtResult)
    assert {node.name for node in caught.value.result.of("succeeded")} == {"second", "third"}, "as dbt 1.12 goes on"
    house.first("select 3 as version")
    house.build(resume=True)
    assert house.versions() == [3, 3, 3]


def test_a_retry_that_is_killed_leaves_nothing_old_that_counts_as_done(house: House) -> None:
    house.build()
    house.first(PASSING)

    def stop(_: float) -> None:
        house.first("select 4 as version")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        house.build(sleep=stop)
    house.build(changed=True)
    assert house.versions() == [4, 4, 4]


def test_what_was_taken_back_is_not_done_until_it_ran_again(tmp_path: Path) -> None:
    state, command = State(tmp_path), DbtCommand("build")
    now = datetime.now(UTC)
    run_path = state.new_run(now, "build-1")

    def event(name: str, at: datetime) -> NodeEvent:
        return NodeEvent(f"model.house.{name}", name, "model", "table", "success", at, at)

    with Ledger(run_path / LEDGER) as ledger:
        ledger.append({"kind": "run", "command": fingerprint(command), "target": "dev", "at": now})
        ledger.node(event("again", now), 1)
        ledger.node(event("old", now), 1)
        ledger.take_back(["model.house.old", "model.house.again"])
        ledger.node(event("again", datetime.now(UTC) + timedelta(seconds=1)), 2)
    found = interrupted_run(state, command)
    assert found
    assert set(found.done) == {"model.house.again"}


def test_what_dbt_used_again_is_a_success_that_is_shown_as_such() -> None:
    # No dbt that can be had here ends a node so by itself: the line is made of dbt 1.12's own classes.
    from dbt.artifacts.schemas.results import NodeStatus
    from dbt.events.types import LogModelResult
    from dbt_common.events.base_types import EventLevel, msg_from_base_event
    from dbt_common.events.functions import msg_to_dict

    info = {
        "unique_id": "model.house.first",
        "node_name": "first",
        "resource_type": "model",
        "materialized": "table",
        "node_status": str(NodeStatus.Reused),
        "node_started_at": "2026-11-01T00:00:00",
        "node_finished_at": "2026-11-01T00:00:01",
    }
    said = LogModelResult(description="", status="REUSED", index=1, total=1, execution_time=0, node_info=info)
    event = parse_line(json.dumps(msg_to_dict(msg_from_base_event(said, level=EventLevel.INFO))).encode())
    assert event and event.node
    node = result_of(event.node)
    assert (node.outcome, node.is_reused) == ("succeeded", True)
    at = node.finished_at
    shown = counts_sentence(DbtResult("build", "dev", (node,), at, at, Path(), Path()))
    assert shown == "1 succeeded (1 of them used again as they were)"
    assert finished_event(FlowRun(uuid4(), "a run"), node, Position())["payload"]["validated_state"]["name"] == "Reused"


def test_what_dbt_used_again_stays_as_it_was_known(house: House) -> None:
    built = Built("success", "2026-11-01", "earlier", None, {}, "")
    last = LastSuccess(built={"model.house.first": built})
    ended = {"model.house.first": ("reused", "2026-11-02"), "model.house.other": ("reused", "2026-11-02")}
    assert after(last, Inputs({}, {}, {}), Done("now", ended)) == {"model.house.first": built}


def test_a_users_home_changes_no_run(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "home" / ".dbt" / "user_settings.yml"
    settings.parent.mkdir(parents=True)
    settings.write_text("flags: {empty: true, hints_enabled: true}\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    house.write("dbt_project.yml", "name: house\nprofile: house\n")
    for number in range(100):
        house.write(f"models/many/m{number}.sql", "select 1 as id")
    result = house.build()
    assert house.versions() == [1, 1, 1], "--empty would have left no row"
    assert "HINT" not in (result.run_path / "run.log").read_text()
    assert [path.name for path in settings.parent.iterdir()] == ["user_settings.yml"], "no record of hints"


def test_a_dbt_elsewhere_is_not_run_with_a_home_that_changes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = engine_or_skip("1.12").program
    settings = tmp_path / "home" / ".dbt" / "user_settings.yml"
    settings.parent.mkdir(parents=True)
    settings.write_text("flags: {empty: true, use_colors: false}\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    with pytest.raises(ConfigError, match=r"user_settings.yml sets empty, which dbt 1\.12\.\d+ .* would take"):
        House(tmp_path, program).build()
    settings.write_text("flags: {use_colors: false}\n")
    assert not House(tmp_path, program).build().of("failed")
