"""A run whose process is killed goes on by itself: begun again by the server, with what it left undone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import orjson
import pytest
import yaml
from click.testing import CliRunner
from prefect.client.orchestration import get_client

from deployments.apply import main
from deployments.schedules import prefect_deployments, schedule_file
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import Project, read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import LEDGER, State, state_of
from flows.engine.ledger.ledger import Ledger, read_ledger
from flows.engine.ledger.resume import fingerprint
from flows.pipelines import after_crash as after_crash_module
from flows.pipelines.after_crash import after_crash, last_runs
from infrastructure.errors import RunStopped
from infrastructure.profiles import Profile
from infrastructure.server.automations import (
    RESUMES_TAG,
    RESUMING,
    Patience,
    automation_documents,
    resume_documents,
    will_be_resumed,
)
from tests.support.prefect_api import SetUpTarget
from tests.support.processes import wait_until
from tests.support.stores import Machine, sent
from tests.support.workers import kill_all, kill_what_it_started, worker_of

BUILD = DbtCommand("build")
BEGAN_AT = datetime(2026, 11, 28, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tags", "run_count", "is_resumed"),
    [
        ([f"{RESUMES_TAG}2"], 0, False),
        ([f"{RESUMES_TAG}2"], 1, True),
        (["nightly", f"{RESUMES_TAG}2"], 2, True),
        ([f"{RESUMES_TAG}2"], 3, False),
        (["nightly"], 1, False),
        ([f"{RESUMES_TAG}x"], 1, False),
    ],
)
def test_a_run_goes_on_once_it_has_begun_and_not_too_often(tags: list[str], run_count: int, is_resumed: bool) -> None:
    assert will_be_resumed(tags, run_count) is is_resumed
    times = next((tag.removeprefix(RESUMES_TAG) for tag in tags if tag.startswith(RESUMES_TAG)), "")
    documents = resume_documents("owner", "managed-by:owner", [int(times)] if times.isdigit() else [])
    counts = [count for it in documents for count in it.trigger["match"].get("prefect.run-count", ())]
    assert (str(run_count) in counts) is is_resumed, "the server's rule is the same"


def test_nobody_is_told_of_a_crash_before_the_run_could_go_on() -> None:
    from infrastructure.blocks.documents import Reference

    crashed = next(it for it in automation_documents(Reference("webhook", "x"), None) if it.name.endswith("crashed"))
    assert f"prefect.flow-run.{RESUMING}" in crashed.trigger["expect"]
    assert Patience().resumed < Patience().told
    assert 2 * Patience().gone <= 120, "that a run is gone is noticed within two minutes"
    gone, _ = resume_documents("owner", "managed-by:owner", [2])
    assert gone.trigger["after"] == ["prefect.flow-run.Running", "prefect.flow-run.heartbeat"], "also before its first"


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state" / "shop" / "dev")


def begun(state: State, run_id: str, minutes: float, command: DbtCommand = BUILD) -> Path:
    """Make the record of a run that began so many minutes after the first."""
    at = BEGAN_AT + timedelta(minutes=minutes)
    run_path = state.new_run(at, f"build-{run_id}")
    with Ledger(run_path / LEDGER) as ledger:
        ledger.append({"kind": "run", "command": fingerprint(command), "at": at, "run_id": run_id})
    return run_path


def test_a_run_goes_on_with_its_own_record_alone(state: State) -> None:
    begun(state, "another", -60)
    assert last_runs(state, "own", BUILD, BEGAN_AT) == (None, None), "killed before dbt began: it starts anew"
    own = begun(state, "own", 1)
    begun(state, "own", 2, DbtCommand("source freshness"))
    begun(state, "another", 3, DbtCommand("test"))
    assert last_runs(state, "own", BUILD, BEGAN_AT) == (own, None), "tests of others change nothing"
    assert last_runs(state, "own", DbtCommand("build", "tag:b"), BEGAN_AT)[0] is None


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_run_does_not_go_on_after_another_has_written_to_its_target(state: State, has_begun: bool) -> None:
    if has_begun:
        begun(state, "own", 1)
    other = begun(state, "another", 2, DbtCommand("run", "orders"))
    assert last_runs(state, "own", BUILD, BEGAN_AT) == (None, other)


@pytest.mark.parametrize("begun_with", [{}, {"resume": True}, {"changed": True}], ids=["plainly", "resume", "changed"])
def test_however_a_run_was_begun_it_goes_on_by_itself_by_one_rule(
    begun_with: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(after_crash_module, "_begun_again", lambda: SimpleNamespace(start_time=BEGAN_AT))
    run = RunContext(Project(tmp_path, "shop", "shop"), Profile("dev", "shop", {}, {}), run_id="own")
    options = RunOptions(**begun_with)
    assert after_crash(options, BUILD, run) == options, "killed before dbt began"
    begun(run.state, "own", 1)
    assert after_crash(options, BUILD, run) == replace(options, resume=not options.changed)
    assert "It goes on by itself" in capsys.readouterr().out
    begun(run.state, "another", 2, DbtCommand("seed"))
    with pytest.raises(RunStopped, match=r"does not go on by itself: the run of \S+ has written to target dev since"):
        after_crash(options, BUILD, run)


# It counts hashes for seconds, so that a kill finds it at work.
SLOW = "select count(*) as n from range(30000000) a, range(40) b where hash(a.range, b.range) = 1"
MODELS = {
    "first": "select 1 as n",
    "slow": f"{SLOW} and (select max(n) from {{{{ ref('first') }}}}) = 1",
    "last": "select n from {{ ref('slow') }}",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a project of three models in a row, each of which leaves a line in the warehouse whenever it is built."""
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    # Ten seconds is the least that a server takes.
    soon = partial(resume_documents, patience=Patience(resumed=10))
    monkeypatch.setattr(prefect_deployments, "resume_documents", soon)
    models = tmp_path / "shop" / "models"
    models.mkdir(parents=True)
    config = "{{ config(materialized='table', post_hook=\"insert into main.built values ('{{ model.name }}')\") }}\n"
    start = "create table if not exists main.built (name text)"
    project = {"name": "shop", "version": "1.0", "on-run-start": [start]}
    (tmp_path / "shop" / "dbt_project.yml").write_text(yaml.safe_dump(project))
    for name, sql in MODELS.items():
        (models / f"{name}.sql").write_text(config + sql)
    yield tmp_path


def told_here(shop: Path) -> str:
    """Return the records of the builds on this machine."""
    return "".join(path.read_text() for path in (shop / "state").glob("shop/*/runs/*-build-*/ledger.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same machine", "another machine"])
def test_a_killed_run_of_a_deployment_ends_well_and_nobody_touched_anything(
    elsewhere: bool,
    shop: Path,
    fresh: str,
    bucket: str,
    set_up_target: SetUpTarget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"{bucket}/{fresh}"
    one = Machine(url, shop / "one machine", monkeypatch) if elsewhere else None
    warehouse = shop / "warehouse.duckdb"
    target = set_up_target({"warehouse": "duckdb", "path": str(warehouse), "schema": "main", "threads": 2})
    monkeypatch.setattr(schedule_file, "load_targets", lambda: SimpleNamespace(names=[target]))
    name = f"dbt-full-pipeline/{fresh}"
    deployment = {
        "flow": "flows.pipelines.full.dbt_full_pipeline",
        "target": target,
        "parameters": {"project_dir": str(shop / "shop")},
    }
    schedules = {
        "owner": fresh,
        "defaults": {"target": target, "work_pool": fresh},
        "work_pools": {fresh: {}},
        "deployments": {name: deployment},
    }
    file = shop / "schedules.yml"
    file.write_text(yaml.safe_dump(schedules))

    def apply(*words: str) -> str:
        result = CliRunner().invoke(main, [words[0], "--file", str(file), *words[1:]])
        assert result.exit_code == 0, result.output
        return result.output

    said = apply("apply")
    assert f'automation "{fresh} schedules: crashed, to go on 2 times"' in said
    assert "Nothing to change" in apply("plan", "--exit-code")

    def heads() -> list[dict[str, Any]]:
        runs = state_of(read_project(shop / "shop"), target, os.environ).runs()
        return [next(read_ledger(run / LEDGER)) for run in runs if "-build-" in run.name]

    def has_built_first() -> bool:
        entries = [orjson.loads(line) for line in (sent(url) if elsewhere else told_here(shop)).splitlines()]
        ended = [entry["event"]["name"] for entry in entries if entry.get("event", {}).get("status") == "success"]
        return "first" in ended

    with get_client(sync_client=True) as client, ExitStack() as workers:
        worker = workers.enter_context(worker_of(fresh))
        run = client.create_flow_run_from_deployment(client.read_deployment_by_name(name).id)

        def is_over() -> bool:
            found = client.read_flow_run(run.id).state
            return found is not None and found.is_final() and not found.is_crashed()

        wait_until(has_built_first, "the first model is built")
        if one:
            kill_all(worker.pid)
            one.lose()
            Machine(url, shop / "other machine", monkeypatch)
            workers.enter_context(worker_of(fresh))
        else:
            kill_what_it_started(worker.pid)
        wait_until(is_over, "the run has gone on to its end", 600)
        ended = client.read_flow_run(run.id)
        states = sorted(client.read_flow_run_states(run.id), key=lambda state: state.timestamp)
    assert ended.state and ended.state.is_completed(), [(state.name, state.message) for state in states]
    assert [state.name for state in states if state.name in ("Crashed", RESUMING)] == ["Crashed", RESUMING]
    with duckdb.connect(str(warehouse)) as connection:
        built = connection.execute("select name from main.built order by rowid").fetchall()
    assert [name for (name,) in built].count("first") == 1, "what was done is not done again"
    assert [name for (name,) in built][-2:] == ["slow", "last"]
    first, second = heads()
    assert first["run_id"] == second["run_id"] == str(run.id)
    assert "resumes" in second
    apply("destroy", "--yes")
    with get_client(sync_client=True) as client:
        assert not [it.name for it in client.read_automations() if it.name.startswith(fresh)]
