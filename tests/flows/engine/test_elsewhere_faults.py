"""Faults of a machine and of the store while a run's state is in a bucket: real dbt, DuckDB, disk and store."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.engine.context.command import DbtCommand
from flows.engine.context.events import NodeEvent
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.shared import bucket as bucket_module
from flows.engine.context.state import state_of
from flows.engine.ledger import keeper
from flows.engine.ledger.ledger import Ledger
from flows.engine.ledger.resume import interrupted_run
from flows.engine.run import run_dbt
from infrastructure.errors import ConfigError, TributaryError
from infrastructure.profiles import Profile
from tests.support.disks import fill, small_disk
from tests.support.road import Road
from tests.support.stores import ADDRESSES, Machine
from tests.support.witnessed_build import MODELS, build, ran, write_project

__all__ = ["small_disk"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_project(tmp_path, monkeypatch)
    monkeypatch.setenv("ROWS", "10")
    return folder


@pytest.fixture
def url(bucket: str, folder: Path) -> str:
    return f"{bucket}/{folder.name}"


@pytest.fixture
def road(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    """Lead every client to the store over a road that can hang."""
    name = ADDRESSES[bucket.partition("://")[0]]
    found = re.search(r"http://[\d.:]+", os.environ[name])
    assert found is not None
    road = Road(found[0])
    monkeypatch.setenv(name, os.environ[name].replace(found[0], road.url.removesuffix("/api")))
    yield road
    road.end()


def changed(folder: Path, select: str | None = None) -> set[str]:
    """Build what changed, and return its names."""
    output = {"type": "duckdb", "path": str(folder / "warehouse.duckdb"), "schema": "main", "threads": 2}
    run = RunContext(read_project(folder / "project"), Profile("dev", "witnessed", output, {}))
    options = RunOptions(changed=select is None)
    return {node.name for node in run_dbt(DbtCommand("build", select), run, options).nodes}


def once_done(name: str, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something while a run goes on, at once when its record says that a model is done."""
    node = Ledger.node
    done: list[object] = []

    def and_act(self: Ledger, event: NodeEvent, attempt: int) -> None:
        node(self, event, attempt)
        if event.name == name and event.status == "success" and not done:
            done.append(act())

    monkeypatch.setattr(Ledger, "node", and_act)


def test_what_was_deleted_under_a_run_is_fetched_again(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Machine(url, folder / "one machine", monkeypatch)
    build(folder)
    # From here on the record of that run alone proves nothing of what it built.
    (folder / "project" / "models" / "new.sql").write_text("select 1 as id")

    def delete() -> None:
        for path in one.copy.glob("*/witnessed/dev/*"):
            # dbt itself fails where its folder goes in the moment in which it writes there.
            if path.name != "target":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    once_done("last", delete, monkeypatch)
    assert changed(folder, "last") == {"last"}

    said = capsys.readouterr().out
    assert f"It was fetched again from {url}" in said
    assert "Gone for good" not in said
    Machine(url, folder / "other machine", monkeypatch)
    assert changed(folder) == {"new"}, "the last good state is that of both runs"
    assert ran(folder) == dict.fromkeys(MODELS, 1) | {"last": 2, "new": 1}


def test_a_store_that_hangs_stops_no_run_and_the_next_one_sends_what_it_did_not_take(
    folder: Path, url: str, road: Road, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Machine(url, folder / "one machine", monkeypatch)
    with monkeypatch.context() as patch:

        def hang() -> None:
            road.hang()
            for module in (bucket_module, keeper):
                patch.setattr(module, "ANSWER_SECONDS", 0.5)
            patch.setattr(bucket_module, "_SPARED_SECONDS", 0.0)

        once_done("second", hang, patch)
        result = build(folder)

    assert result.counts() == {"succeeded": 5, "warned": 0, "failed": 0, "skipped": 0}
    assert "The record of this run could not be kept for other machines" in (said := capsys.readouterr().out)
    assert "this machine's next run sends it" in said
    # What it was sent while it hung arrives now, late.
    road.hang(False)
    assert changed(folder) == set()
    Machine(url, folder / "other machine", monkeypatch)
    assert changed(folder) == set()
    assert ran(folder) == dict.fromkeys(MODELS, 1)


def test_another_machine_goes_on_where_a_full_disk_stopped_a_run(
    folder: Path, url: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(url, small_disk / "one machine", monkeypatch)
    with monkeypatch.context() as patch:
        once_done("second", lambda: fill(small_disk, 0), patch)
        # It is noticed by whichever writes first: the run's record, or dbt.
        with pytest.raises(TributaryError, match="No space left on device"):
            build(folder)
    with pytest.raises(ConfigError, match="No space left on device"):
        build(folder)

    Machine(url, folder / "other machine", monkeypatch)
    earlier = interrupted_run(state_of(read_project(folder / "project"), "dev", os.environ), DbtCommand("build"))
    assert earlier is not None
    assert {"first", "second"} <= {node.name for node in earlier.done.values()}
    assert build(folder, resume=True).counts()["succeeded"] == 5
    assert {name: count for name, count in ran(folder).items() if name in ("first", "second")} == {
        "first": 1,
        "second": 1,
    }
