"""A disk that is full: a clear sentence, and nothing that was done is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.changed.defer import deferred
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import state_of
from flows.engine.process.listing import list_nodes
from flows.engine.run import run_dbt
from flows.engine.target.file_lock import one_writer
from infrastructure.errors import ConfigError, TributaryError
from infrastructure.profiles import Profile
from tests.support.disks import fill, small_disk

__all__ = ["small_disk"]

SHOP = read_project(Path(__file__).parents[3] / "projects" / "shop")


def build(folder: Path, resume: bool = False) -> DbtResult:
    output = {"type": "duckdb", "path": str(folder / "warehouse.duckdb"), "schema": "main", "threads": 2}
    run = RunContext(SHOP, Profile("dev", "shop", output, {}))
    return run_dbt(DbtCommand("build"), run, RunOptions(resume=resume))


def test_a_full_disk_stops_a_run_with_a_sentence_and_the_next_one_goes_on(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(small_disk / "state"))
    state_of(SHOP, "dev", os.environ)
    ballast = fill(small_disk, 0)
    with pytest.raises(ConfigError, match=r"No space left on device\. (Free some space|Choose a folder)"):
        build(tmp_path)
    ballast.unlink()
    # Enough for dbt to begin, and too little for what it writes down of its parse.
    ballast = fill(small_disk, 200_000)
    with pytest.raises(TributaryError, match="No space left on device"):
        build(tmp_path)
    ballast.unlink()
    assert build(tmp_path, resume=True).counts() == {"succeeded": 14, "warned": 0, "failed": 0, "skipped": 0}


def test_a_disk_that_is_full_before_the_start_is_no_traceback_wherever_it_is_noticed(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(small_disk / "state"))
    monkeypatch.setattr("flows.engine.target.file_lock._is_shared_server", lambda: False)
    profile = Profile("dev", "shop", {"type": "duckdb", "path": str(tmp_path / "w.duckdb"), "schema": "main"}, {})
    state = state_of(SHOP, "dev", os.environ)
    state.parsed.write_bytes(b"x" * 100_000)
    for name in ("manifest.json", "nodes.json"):
        (tmp_path / name).write_bytes(b"x" * 100_000)
    fill(small_disk, 0)
    with one_writer("dev", "me", wait=False):
        said = r"No space left on device\. Free some space or choose another folder with TRIBUTARY_STATE"
        with pytest.raises(ConfigError, match=said):
            list_nodes(DbtCommand("ls"), SHOP, profile)
        with pytest.raises(ConfigError, match=said):
            deferred(DbtCommand("build"), SHOP, profile, str(tmp_path))
