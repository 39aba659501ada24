"""Sinks of a user's own, which a workspace names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from flows.cli.events import events as events_command
from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.context.reporting import reporting_to
from flows.engine.sinks import following
from flows.engine.sinks.following import Follower, send_the_rest
from flows.engine.sinks.sink import Kind, kinds
from infrastructure.errors import ConfigError
from tests.support.ledgers import ended, ending, head, learned, started, written
from tests.support.notes import Notes
from tests.support.projects import PROJECTS

A_RUN = (head(), started("a"), ended("a"), learned(a={"response": {"rows_affected": 3}}), ending())
SINKS = """
from pathlib import Path

from flows.events import NodeEnded, RunStarted


class Rows:
    def __init__(self, file):
        self.file = file

    def take(self, run: RunStarted, event) -> None:
        if isinstance(event, NodeEnded):
            with self.file.open("a") as lines:
                lines.write(f"{run.project} {event.result.name} {event.result.row_count}\\n")

    def close(self) -> None: ...


def rows(artifacts):
    return Rows(Path(__file__).with_name("rows.txt"))


def broken(artifacts):
    raise ValueError("the board at http://me:geheim@board is full")
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "tributary.yml").write_text("sinks:\n  rows: own_sinks:rows\n  board: own_sinks:broken\n")
    (folder / "own_sinks.py").write_text(SINKS)
    monkeypatch.setenv("TRIBUTARY_WORKSPACE", str(folder))
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
    sys.modules.pop("own_sinks", None)


def follow(kind: Kind, run_path: Path) -> Follower:
    return Follower(kind, run_path, Artifacts(run_path), str(run_path))


def test_it_is_given_every_event_of_a_run_with_the_run(workspace: Path) -> None:
    run_path = written(workspace / "20261128T120000.0Z-build", A_RUN)
    kind = kinds()["rows"]
    assert kind.is_asked({})
    with follow(kind, run_path):
        pass
    assert (workspace / "rows.txt").read_text() == "shop a 3\n"
    assert send_the_rest(run_path, kind, Artifacts(run_path)) == 0


def test_what_is_wrong_with_it_is_a_sentence_without_secrets(workspace: Path) -> None:
    run_path = written(workspace / "20261128T120000.0Z-build", A_RUN)
    notes = Notes()
    with reporting_to(notes), follow(kinds()["board"], run_path):
        pass
    (said,) = notes.said
    assert said.startswith("The sink board did not take all events of this run: the board at http://board is full. ")
    assert said.endswith("or: uv run tributary events replay 20261128T120000 --to board")


def test_a_sink_that_is_not_there_is_said_with_those_that_are(workspace: Path) -> None:
    words = ["replay", "--to", "row", "--project-dir", str(PROJECTS / "bare"), "--target", "dev"]
    with pytest.raises((ConfigError, click.ClickException), match="no sink 'row'; there is rows, board, openlineage"):
        events_command.main(words, standalone_mode=False)


def test_an_entry_that_is_no_function_of_a_module_is_refused(workspace: Path) -> None:
    (workspace / "tributary.yml").write_text("sinks:\n  rows: own_sinks\n")
    with pytest.raises(ConfigError, match="sinks"):
        kinds()
