"""Runs that are killed in the middle and resumed, on real dbt and DuckDB."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.events import DbtEvent, NodeEvent
from flows.engine.context.options import RunOptions
from flows.engine.context.reporting import reporting_to
from flows.engine.context.state import LEDGER, TEXT_LOG, State
from flows.engine.ledger.ledger import Ledger
from flows.engine.ledger.resume import fingerprint, interrupted_run, name_of_run, options_of, told_of
from flows.engine.target.file_lock import one_writer
from infrastructure.errors import ConfigError, DbtRunFailed
from tests.support.stores import in_a_folder
from tests.support.witnessed_build import MODELS, build, kill_in_the_middle, ran, state_in, write_project


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_project(tmp_path, monkeypatch)


@pytest.mark.parametrize("victim", ["flow", "dbt", "both"])
def test_a_killed_build_is_resumed_without_doing_anything_twice(
    folder: Path, victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_in_the_middle(folder, victim)
    earlier = interrupted_run(state_in(folder), DbtCommand("build"))
    assert earlier is not None
    assert {name.split(".")[2] for name in earlier.done} == {"first", "second", "not_null_second_id"}

    monkeypatch.setenv("ROWS", "10")
    with one_writer("dev", holder="the resumed run", wait=False):
        result = build(folder, resume=True)

    assert result.counts() == {"succeeded": 5, "warned": 0, "failed": 0, "skipped": 0}
    assert {node.name for node in result.nodes} == {*MODELS, "not_null_second_id"}
    assert ran(folder) == dict.fromkeys(MODELS, 1)
    resumed = interrupted_run(state_in(folder), DbtCommand("build"))
    assert resumed is not None
    assert resumed.is_whole


def test_a_resumed_run_does_what_failed_and_what_was_skipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWS", "'no number'")
    with pytest.raises(DbtRunFailed, match="endless"):
        build(folder)
    assert ran(folder) == {"first": 1, "second": 1}
    monkeypatch.setenv("ROWS", "10")
    result = build(folder, resume=True)
    assert result.counts()["succeeded"] == 5
    assert ran(folder) == dict.fromkeys(MODELS, 1)
    for _ in range(2):
        nothing = build(folder, resume=True)
        assert nothing.nodes == ()
        assert any("Nothing to resume: the run of " in note for note in nothing.notes)
        assert not (nothing.run_path / TEXT_LOG).exists(), "dbt was started for nothing"
    assert ran(folder) == dict.fromkeys(MODELS, 1)


def write_run(state: State, command: DbtCommand, options: RunOptions, is_ok: bool) -> str:
    """Write the record of a run, as `run_dbt` does, and return its name."""
    at = datetime.now(UTC)
    run_path = state.new_run(at, command.verb)
    with Ledger(run_path / LEDGER) as ledger:
        head = {"kind": "run", "command": fingerprint(command), "target": "dev", "at": at}
        ledger.append(head | {"options": told_of(options)})
        ledger.append({"kind": "end", "at": at, "is_ok": is_ok, "nodes": 1})
    return name_of_run(run_path)


DAYS = ({"day": date(2026, 1, 31)}, {"day": date(2026, 1, 30)})


@pytest.mark.parametrize(
    ("then", "asked", "differs"),
    [
        (RunOptions(), RunOptions(select="last"), '--select was not given then and is "last" now'),
        (RunOptions(vars=DAYS[0]), RunOptions(), '--vars was {"day":"2026-01-31"} then and is not given now'),
        (
            RunOptions(vars=DAYS[0]),
            RunOptions(vars=DAYS[1], full_refresh=True),
            "--full-refresh was not given then and is true now; "
            '--vars was {"day":"2026-01-31"} then and is {"day":"2026-01-30"} now',
        ),
    ],
)
def test_a_resume_of_something_else_says_what_differs_and_how_to_go_on(
    folder: Path, then: RunOptions, asked: RunOptions, differs: str
) -> None:
    state = state_in(folder)
    write_run(state, asked.command("build"), asked, is_ok=True)
    name = write_run(state, then.command("build"), then, is_ok=False)
    # What ended well, and commands of another kind, are nothing to resume.
    write_run(state, RunOptions(select="first").command("build"), RunOptions(select="first"), is_ok=True)
    write_run(state, DbtCommand("test"), RunOptions(), is_ok=False)
    with pytest.raises(ConfigError) as refused:
        interrupted_run(state, asked.command("build"))
    assert f"run of something else: {differs}. To go on with that one: --resume {name}, and" in str(refused.value)

    named = options_of(RunOptions(resume=True, resume_run=name, retries=7), state)
    assert (named.vars, named.select, named.retries) == (then.vars, None, 7)
    found = interrupted_run(state, named.command("build"))
    assert found is not None
    assert name_of_run(found.run_path) == name

    # Where there are two, each is resumed by what it was given.
    write_run(state, asked.command("build"), asked, is_ok=False)
    found = interrupted_run(state, then.command("build"))
    assert found is not None
    assert name_of_run(found.run_path) == name


def test_a_run_that_is_named_is_resumed_with_what_it_was_given_and_nothing_else(folder: Path) -> None:
    state, then = state_in(folder), RunOptions(select="first+", defer_to="prod")
    name = write_run(state, then.command("build"), then, is_ok=False)
    assert options_of(RunOptions(resume=True), state) == RunOptions(resume=True)
    assert options_of(RunOptions(resume=True, resume_run=name, select="first+"), state).defer_to == "prod"
    with pytest.raises(ConfigError, match=rf"--resume {name} goes on with .*: --select\. Leave that out"):
        options_of(RunOptions(resume=True, resume_run=name, select="last"), state)
    with pytest.raises(ConfigError, match="There is no record of a build '20200101'"):
        options_of(RunOptions(resume=True, resume_run="20200101"), state)


def test_a_damaged_record_is_no_ground_to_go_on_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_in(folder)
    run_path = state.new_run(datetime.now(UTC), "t")
    (run_path / LEDGER).write_bytes(b"")
    assert interrupted_run(state, DbtCommand("build")) is None, "nothing had been done"
    (run_path / LEDGER).write_bytes(b"\x00" * 4096)
    with pytest.raises(ConfigError, match=r"The record of the last run is damaged.*ledger\.jsonl.*without --resume"):
        interrupted_run(state, DbtCommand("build"))


def test_a_run_that_was_killed_while_it_resumed_another_loses_nothing_of_that_one(folder: Path) -> None:
    state, at = state_in(folder), datetime.now(UTC)
    head = {"kind": "run", "command": fingerprint(DbtCommand("build")), "target": "dev", "at": at}
    done = [NodeEvent(f"model.witnessed.{name}", name, "model", "table", "success", at, at) for name in ("a", "b")]
    before = ""
    for number, event in enumerate([done[0], done[1], None]):
        run_path = state.new_run(at, str(number))
        with Ledger(run_path / LEDGER) as ledger:
            ledger.append(head | ({"resumes": before} if before else {}))
            if event:
                ledger.node(event, 1)
        before = run_path.name
    earlier = interrupted_run(state, DbtCommand("build"))
    assert earlier is not None
    assert set(earlier.done) == {"model.witnessed.a", "model.witnessed.b"}


class Deleting:
    """Delete a folder when a node has ended, and hear what is said of that."""

    def __init__(self, place: Path, after: str) -> None:
        self._place = place
        self._after = after
        self.notes: list[str] = []

    def stage(self, text: str) -> None: ...

    def event(self, event: DbtEvent) -> None:
        if event.node and event.node.name == self._after and event.node.finished_at and self._place.exists():
            # Under another name first: dbt writes into it at this very moment.
            gone = self._place.with_name("gone")
            self._place.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def note(self, text: str) -> None:
        self.notes.append(text)


@in_a_folder
def test_a_state_folder_that_is_deleted_under_a_run_costs_nothing_that_was_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended well, with its record in a file that had no name any more; --resume then did everything again."""
    monkeypatch.setenv("ROWS", "10")
    build(folder)
    monkeypatch.setenv("ROWS", "'no number'")
    deleting = Deleting(folder / "state", "second")
    with one_writer("dev", holder="this run"), reporting_to(deleting), pytest.raises(DbtRunFailed) as caught:
        build(folder)
    (run_path,) = state_in(folder).runs()
    assert isinstance(caught.value.result, DbtResult)
    said = " ".join(deleting.notes)
    assert f"{run_path / LEDGER} was deleted while it was written to. It is there again, whole." in said
    assert "Gone for good: the records of 1 earlier runs" in said
    assert "the last good state, so that the next run with --changed builds everything" in said
    assert any("Gone for good" in note for note in caught.value.result.notes), "and whoever reads the report knows"
    log = (run_path / TEXT_LOG).read_text()
    assert "first" in log
    assert "Done. PASS=" in log

    monkeypatch.setenv("ROWS", "10")
    assert build(folder, resume=True).counts()["succeeded"] == 5
    assert ran(folder) == dict.fromkeys(MODELS, 2), "once in each of the two runs"


def test_what_nobody_knows_any_more_is_not_done_twice_in_silence(folder: Path) -> None:
    state, at, listener = state_in(folder), datetime.now(UTC), Deleting(folder / "nothing", "nobody")
    with reporting_to(listener):
        assert interrupted_run(state, DbtCommand("build")) is None
    assert listener.notes[0].startswith(f"There is no record of an earlier run of this under {state.folder}, so")
    head = {"kind": "run", "command": fingerprint(DbtCommand("build")), "target": "dev", "at": at}
    # It went on from a run whose record is gone, and was killed before it had written down what that one did.
    run_path = state.new_run(at, "2")
    with Ledger(run_path / LEDGER) as ledger:
        ledger.append(head | {"resumes": "20260131T000000.000000Z-1"})
        with pytest.raises(ConfigError, match=r"was deleted, so it is unknown .*without --resume"):
            interrupted_run(state, DbtCommand("build"))
        ledger.node(NodeEvent("model.witnessed.a", "a", "model", "table", "success", at, at), 1)
        earlier = interrupted_run(state, DbtCommand("build"))
        assert earlier is not None
        assert set(earlier.done) == {"model.witnessed.a"}
    (run_path / TEXT_LOG).write_text("12:00:00 1 of 1 OK created\n")
    (run_path / LEDGER).unlink()
    with pytest.raises(ConfigError, match=r"was deleted, so it is unknown .*without --resume"):
        interrupted_run(state, DbtCommand("build"))
