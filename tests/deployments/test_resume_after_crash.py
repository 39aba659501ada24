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
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun

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
from infrastructure.server.left_runs import Waits, begin_left_runs_again
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
    monkeypatch.setattr(after_crash_module, "_left_since", lambda: BEGAN_AT)
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


class Deployed:
    """The deployment of the shop on a pool of its own, and its run."""

    def __init__(self, shop: Path, name: str, target: str) -> None:
        self.target = target
        self._file = shop / "schedules.yml"
        self._flow = f"dbt-full-pipeline/{name}"
        self.automation = f"{name} schedules: crashed, to go on 2 times"
        deployment = {
            "flow": "flows.pipelines.full.dbt_full_pipeline",
            "target": target,
            "parameters": {"project_dir": str(shop / "shop")},
        }
        schedules = {
            "owner": name,
            "defaults": {"target": target, "work_pool": name},
            "work_pools": {name: {}},
            "deployments": {self._flow: deployment},
        }
        self._file.write_text(yaml.safe_dump(schedules))

    def apply(self, *words: str) -> str:
        """Run a command of `deployments.apply`."""
        result = CliRunner().invoke(main, [words[0], "--file", str(self._file), *words[1:]])
        assert result.exit_code == 0, result.output
        return result.output

    def run(self, client: SyncPrefectClient) -> FlowRun:
        """Have a run of it begin."""
        return client.create_flow_run_from_deployment(client.read_deployment_by_name(self._flow).id)


@pytest.fixture
def warehouse(shop: Path) -> Path:
    return shop / "warehouse.duckdb"


@pytest.fixture
def deployed(
    shop: Path, warehouse: Path, fresh: str, set_up_target: SetUpTarget, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployed]:
    target = set_up_target({"warehouse": "duckdb", "path": str(warehouse), "schema": "main", "threads": 2})
    monkeypatch.setattr(schedule_file, "load_targets", lambda: SimpleNamespace(names=[target]))
    found = Deployed(shop, fresh, target)
    said = found.apply("apply")
    assert f'automation "{found.automation}"' in said
    assert "Nothing to change" in found.apply("plan", "--exit-code")
    yield found
    found.apply("destroy", "--yes")
    with get_client(sync_client=True) as client:
        assert not [it.name for it in client.read_automations() if it.name.startswith(fresh)]


def went_on_to_its_end(client: SyncPrefectClient, run: FlowRun) -> None:
    """Wait until a run is over, and make sure that it is well and was begun twice."""

    def is_over() -> bool:
        found = client.read_flow_run(run.id).state
        return found is not None and found.is_final() and not found.is_crashed()

    wait_until(is_over, "the run has gone on to its end", 600)
    states = sorted(client.read_flow_run_states(run.id), key=lambda state: state.timestamp)
    assert states[-1].is_completed(), [(state.name, state.message) for state in states]
    assert [state.name for state in states if state.name in ("Crashed", RESUMING)] == ["Crashed", RESUMING]


def built_in(warehouse: Path) -> list[str]:
    """Return the names of the models as they were built, one after the other."""
    with duckdb.connect(str(warehouse)) as connection:
        built = connection.execute("select name from main.built order by rowid").fetchall()
    return [name for (name,) in built]


def heads_of_builds(shop: Path, target: str) -> list[dict[str, Any]]:
    """Return the first entry of the record of each build."""
    runs = state_of(read_project(shop / "shop"), target, os.environ).runs()
    return [next(read_ledger(run / LEDGER)) for run in runs if "-build-" in run.name]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["process killed", "machine lost", "no event of it"])
def test_a_killed_run_of_a_deployment_ends_well_and_nobody_touched_anything(
    fault: str,
    shop: Path,
    warehouse: Path,
    fresh: str,
    bucket: str,
    deployed: Deployed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"{bucket}/{fresh}"
    one = Machine(url, shop / "one machine", monkeypatch) if fault == "machine lost" else None

    def has_built_first() -> bool:
        entries = [orjson.loads(line) for line in (sent(url) if one else told_here(shop)).splitlines()]
        ended = [entry["event"]["name"] for entry in entries if entry.get("event", {}).get("status") == "success"]
        return "first" in ended

    with get_client(sync_client=True) as client, ExitStack() as workers:
        if fault == "no event of it":
            # As where the server's message broker dies in that second.
            for automation in client.read_automations():
                if automation.name.startswith(f"{fresh} schedules: "):
                    client.delete_automation(automation.id)
        worker = workers.enter_context(worker_of(fresh))
        run = deployed.run(client)
        wait_until(has_built_first, "the first model is built")
        if one:
            kill_all(worker.pid)
            one.lose()
            Machine(url, shop / "other machine", monkeypatch)
            workers.enter_context(worker_of(fresh))
        else:
            kill_what_it_started(worker.pid)
        if fault == "no event of it":
            # The worker reports the crash too, and by then it has.
            look = partial(begin_left_runs_again, client, Waits(crashed=30))
            wait_until(lambda: bool(look()), "another run has looked after it")
        went_on_to_its_end(client, run)
    built = built_in(warehouse)
    assert built.count("first") == 1, "what was done is not done again"
    assert built[-2:] == ["slow", "last"]
    first, second = heads_of_builds(shop, deployed.target)
    assert first["run_id"] == second["run_id"] == str(run.id)
    assert "resumes" in second


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_before_it_begins_is_begun_by_another(
    shop: Path, warehouse: Path, fresh: str, deployed: Deployed
) -> None:
    with get_client(sync_client=True) as client, ExitStack() as workers:
        worker = workers.enter_context(worker_of(fresh))
        run = deployed.run(client)
        wait_until(lambda: "prefect.worker.name" in client.read_flow_run(run.id).labels, "a worker has taken it")
        kill_all(worker.pid)
        found = client.read_flow_run(run.id)
        assert found.state
        assert found.state.is_pending()
        assert begin_left_runs_again(client) == [], "it may be beginning"
        workers.enter_context(worker_of(fresh))
        look = partial(begin_left_runs_again, client, Waits(taken=0))
        wait_until(lambda: bool(look()), "another run has looked after it")
        went_on_to_its_end(client, run)
    assert built_in(warehouse) == ["first", "slow", "last"]
    (head,) = heads_of_builds(shop, deployed.target)
    assert "resumes" not in head
