"""A run's options are one object from the command line down, and a new one takes few files."""

from __future__ import annotations

import re
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli.run import run
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext, current_holder, open_context, project_at
from flows.pipelines import local_run
from flows.pipelines.full import dbt_full_pipeline
from infrastructure import profiles
from infrastructure.errors import ConfigError
from infrastructure.profiles import Profile

ROOT = Path(__file__).parents[4]
SHOP = ROOT / "tests" / "projects" / "shop"


def test_the_flow_takes_every_option_as_a_parameter_with_the_same_default() -> None:
    parameters = signature(dbt_full_pipeline.fn).parameters
    asked = {name: p.default for name, p in parameters.items() if name not in ("target", "project_dir")}
    own = {name: getattr(RunOptions(), name) for name in (each.name for each in fields(RunOptions))}
    assert {name: value or None for name, value in asked.items()} == {k: v or None for k, v in own.items()}


def test_what_is_typed_reaches_the_flow_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[local_run.Request] = []

    def stop(request: local_run.Request) -> None:
        asked.append(request)
        raise ConfigError("far enough")

    monkeypatch.setattr(local_run, "run_locally", stop)
    words = "--select a --select b --exclude c --resume 20261128T03 --docs --no-freshness --no-wait --retries 7"
    words += " --full-refresh --timeout-minutes 2 --fail-fast --threads 3 --allow-nothing --empty --store-failures"
    words += " --event-time-start 2026-01-01 --event-time-end 2026-01-02 --indirect-selection empty"
    CliRunner().invoke(run, [*words.split(), "--vars", "{day: 1}", "--sample", "3 days"])
    assert asked[0].options == RunOptions(
        select="a b",
        exclude="c",
        full_refresh=True,
        vars={"day": 1},
        resume=True,
        resume_run="20261128T03",
        retries=7,
        timeout_seconds=120,
        wait=False,
        freshness=False,
        docs=True,
        fail_fast=True,
        threads=3,
        allow_nothing=True,
        empty=True,
        sample="3 days",
        event_time_start="2026-01-01",
        event_time_end="2026-01-02",
        store_failures=True,
        indirect_selection="empty",
    )
    CliRunner().invoke(run, ["--resume", "--docs"])
    assert asked[1].options == RunOptions(resume=True, docs=True)


@pytest.mark.parametrize("option", ["fail_fast", "threads", "event_time_end"])
def test_an_option_takes_three_files(option: str) -> None:
    word = re.compile(rf"--{option.replace('_', '-')}\b|\b{option}(=|: (bool|int|str))")
    rooms = [ROOT / "flows" / name for name in ("cli", "pipelines", "engine/context")]
    files = [ROOT / "flows" / "engine" / "run.py", *(path for room in rooms for path in room.rglob("*.py"))]
    found = {str(path.relative_to(ROOT / "flows")) for path in files if word.search(path.read_text())}
    assert found == {"engine/context/options.py", "cli/options.py", "pipelines/full.py"}


def test_how_a_command_runs_is_no_part_of_what_it_is() -> None:
    fast = RunOptions(fail_fast=True, threads=3)
    assert fast.manner("build") == ["--fail-fast", "--threads", "3"]
    assert fast.manner("docs generate") == []
    assert fast.command("build") == RunOptions().command("build")


@pytest.mark.parametrize("both", [{"changed": True, "resume": True}, {"changed": True, "defer_to": "prod"}])
def test_options_that_contradict_each_other_are_refused(both: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--changed"):
        RunOptions(**both)  # type: ignore[arg-type]


def test_a_target_and_its_project_are_asked_for_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path))
    loaded: list[str] = []

    def load(target: str) -> Profile:
        loaded.append(target)
        return Profile(target, "shop", {"type": "duckdb"}, {})

    monkeypatch.setattr(profiles, "load_profile", load)
    with open_context("dev", str(SHOP)) as outer:
        with open_context("dev", str(SHOP)) as inner:
            assert inner is outer
            assert project_at(str(SHOP)) is outer.project
        with open_context("prod", outer.project) as other:
            assert other.project is outer.project
    assert loaded == ["dev", "prod"]
    with open_context("dev", str(SHOP)):
        pass
    assert loaded[2:] == ["dev"], "a context that is closed is not used again"


def test_a_context_outside_of_a_flow_has_an_id_and_a_holder_of_its_own() -> None:
    run = RunContext(read_project(SHOP), Profile("dev", "shop", {"type": "duckdb"}, {}))
    assert run.run_id != RunContext(run.project, run.profile).run_id
    assert run.holder == current_holder()
