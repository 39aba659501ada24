"""Runs that go on on another machine, from state in a bucket: real dbt, DuckDB and store."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from flows.engine.changed.change_plan import plan_changes
from flows.engine.changed.defer import deferred
from flows.engine.changed.run_memory import memory_for_plan
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.shared import target as shared_target
from flows.engine.context.shared.bucket import Bucket
from flows.engine.context.state import State, state_of
from flows.engine.ledger.resume import interrupted_run
from flows.engine.run import run_dbt
from infrastructure.profiles import Profile
from tests.support.stores import Machine, objects, sent
from tests.support.witnessed_build import MODELS, build, kill_in_the_middle, ran, write_project


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_project(tmp_path, monkeypatch)


@pytest.fixture
def machines(folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Machine]:
    url = f"{bucket}/{folder.name}"
    other = Machine(url, folder / "other machine", monkeypatch)
    return Machine(url, folder / "one machine", monkeypatch), other


def state_in(folder: Path) -> State:
    return state_of(read_project(folder / "project"), "dev", os.environ)


def profile(folder: Path, target: str = "dev", schema: str = "main") -> Profile:
    output = {"type": "duckdb", "path": str(folder / "warehouse.duckdb"), "schema": schema, "threads": 2}
    return Profile(target, "witnessed", output, {})


def changed(folder: Path) -> set[str]:
    """Build what changed, and return its names."""
    run = RunContext(read_project(folder / "project"), profile(folder))
    return {node.name for node in run_dbt(DbtCommand("build"), run, RunOptions(changed=True)).nodes}


def build_and_lose(folder: Path, machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Build on the one machine, lose it, and go to the other."""
    one, other = machines
    monkeypatch.setenv("ROWS", "10")
    build(folder)
    one.lose()
    other.use()


def test_a_run_whose_machine_is_gone_is_resumed_on_another(
    folder: Path, machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = machines
    kill_in_the_middle(folder, "both", lambda _: sent(one.url))
    one.lose()

    other.use()
    earlier = interrupted_run(state_in(folder), DbtCommand("build"))
    assert earlier is not None
    assert {name.split(".")[2] for name in earlier.done} == {"first", "second", "not_null_second_id"}
    monkeypatch.setenv("ROWS", "10")
    result = build(folder, resume=True)

    assert result.counts() == {"succeeded": 5, "warned": 0, "failed": 0, "skipped": 0}
    assert ran(folder) == dict.fromkeys(MODELS, 1)
    assert [name for name in objects(one.url) if "/ledger/" in name and not name.endswith(".gz")] == []


def test_what_was_built_elsewhere_is_not_built_again_and_parsed_only_where_it_changed(
    folder: Path, machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build_and_lose(folder, machines, monkeypatch)
    assert changed(folder) == set()
    (folder / "project" / "models" / "last.sql").write_text("select id + 1 as id from {{ ref('endless') }}")
    assert changed(folder) == {"last"}
    # dbt says so where it has nothing to begin with.
    assert "Found 4 models" in (said := capsys.readouterr().out)
    assert said.count("saved manifest not found") == 1, "the first machine alone"
    machines[0].use()
    assert changed(folder) == set()
    assert ran(folder) == dict.fromkeys(MODELS, 1) | {"last": 2}


def test_another_target_is_deferred_to_from_a_machine_that_never_built_it(
    folder: Path, machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_and_lose(folder, machines, monkeypatch)
    (folder / "project" / "models" / "last.sql").write_text("select id + 1 as id from {{ ref('endless') }}")
    run = RunContext(read_project(folder / "project"), profile(folder, "ci", "ci"))
    command = deferred(DbtCommand("build"), run.project, run.profile, "dev")
    result = run_dbt(command, run)

    assert {node.name for node in result.nodes} == {"last"}


def test_reading_writes_nothing_elsewhere(
    folder: Path, machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = machines
    assert interrupted_run(state_in(folder), DbtCommand("build")) is None
    assert objects(one.url) == {}
    monkeypatch.setenv("ROWS", "10")
    build(folder)
    before = objects(one.url)

    other.use()
    memory = memory_for_plan(DbtCommand("build"), read_project(folder / "project"), profile(folder))
    plan = plan_changes(memory, read_project(folder / "project"), profile(folder))

    assert plan.command is None or plan.command.nodes == ()
    assert objects(one.url) == before
    assert stat.S_IMODE(next(other.copy.iterdir()).stat().st_mode) == 0o700


def test_what_another_run_wrote_meanwhile_is_not_overwritten(
    folder: Path, machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, _ = machines
    monkeypatch.setenv("ROWS", "10")
    build(folder)
    name = next(name for name in objects(one.url) if name.endswith("dev/head.json"))
    theirs = {**json.loads(objects(one.url)[name]), "run": "theirs"}
    bucket = Bucket(one.url)

    def write_theirs(*_: object) -> bytes:
        # Between what this run reads and what it writes.
        bucket.write(name, json.dumps(theirs).encode())
        return packed(*_)

    packed = shared_target._packed
    monkeypatch.setattr(shared_target, "_packed", write_theirs)
    build(folder)

    assert "another run has written to" in capsys.readouterr().out
    assert json.loads(objects(one.url)[name]) == theirs
    monkeypatch.setattr(shared_target, "_packed", packed)
    assert changed(folder) == set()


def test_state_of_another_version_begins_anew_in_a_sentence(
    folder: Path, machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = machines
    monkeypatch.setenv("ROWS", "10")
    build(folder)
    name = next(name for name in objects(one.url) if name.endswith("dev/head.json"))
    Bucket(one.url).write(name, b'{"format": 99}')

    other.use()
    # The records of the runs still say what was built.
    assert changed(folder) == set()
    assert capsys.readouterr().out.count("head.json is of format 99, and this version reads 1") == 1
    assert json.loads(objects(one.url)[name])["format"] == 1
