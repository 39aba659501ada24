"""Runs that crashed, or that a worker took and never began, and that no automation begins again: on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Cancelling, Crashed, Failed, Pending, Running, Scheduled

from infrastructure.server import left_runs
from infrastructure.server.automations import RESUMES_TAG, RESUMING
from infrastructure.server.left_runs import ALIVE, Waits, begin_left_runs_again

# Everything is long enough ago.
AT_ONCE = Waits(crashed=-60, taken=-60, stuck=3600)
LOST = {"prefect.worker.name": "gone", "prefect.worker.type": "process"}
again = partial(Scheduled, name=RESUMING)


@dataclass
class Pool:
    """A work pool with one worker that lives, and a deployment on it."""

    client: SyncPrefectClient
    name: str
    runs: list[FlowRun] = field(default_factory=list)

    def run(self, *states: State[Any], resumes: int = 2, pid: str = "", **labels: str) -> FlowRun:
        """Make a run of a deployment that has been in these states."""
        deployment_id = self.client.create_deployment(
            self.client.create_flow_from_name(self.name),
            f"{self.name}-{resumes}",
            work_pool_name=self.name,
            tags=[f"{RESUMES_TAG}{resumes}"] if resumes else [],
        )
        run = self.client.create_flow_run_from_deployment(deployment_id)
        self.runs.append(run)
        for state in states:
            self.client.set_flow_run_state(run.id, state, force=True)
        if labels:
            told = {name.replace("_", "."): value for name, value in labels.items()}
            self.client.update_flow_run_labels(run.id, {**told, "prefect.work-pool.name": self.name})
        if pid:
            self.client.update_flow_run(run.id, infrastructure_pid=pid)
        return run

    def taken(self, *states: State[Any], worker: str = "gone", kind: str = "process", **more: Any) -> FlowRun:
        """Make a run that a worker has taken."""
        return self.run(*states or [Pending()], prefect_worker_name=worker, prefect_worker_type=kind, **more)

    def names(self, run: FlowRun) -> list[str]:
        """Return the names of the states that a run has been in."""
        states = self.client.read_flow_run_states(run.id)
        return [str(state.name) for state in sorted(states, key=lambda state: state.timestamp)]

    def look(self, waits: Waits = AT_ONCE) -> set[str]:
        """Have left runs begun again, and return the names of those of this pool."""
        return {run.name for run in self.runs} & set(begin_left_runs_again(self.client, waits))


@pytest.fixture
def pool(prefect_server: str, fresh: str) -> Iterator[Pool]:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=fresh, type="process"))
        client.send_worker_heartbeat(fresh, "alive", 30.0)
        pool = Pool(client, fresh)
        yield pool
        for run in pool.runs:
            client.delete_flow_run(run.id)


def test_a_crashed_run_that_no_event_told_of_is_begun_again_and_once(pool: Pool) -> None:
    run = pool.run(Pending(), Running(), Crashed())

    assert pool.look(Waits()) == set(), "its automations have three minutes"
    assert pool.look() == {run.name}
    assert pool.look() == set(), "it waits for a worker now"
    assert pool.names(run)[-2:] == ["Crashed", RESUMING]
    pool.client.set_flow_run_state(run.id, Running(), force=True)
    assert pool.look() == set(), "it goes on"


def test_it_is_begun_again_as_often_as_its_deployment_says(pool: Pool) -> None:
    once = pool.run(Running(), Crashed(), again(), Running(), Crashed())
    pool.run(Running(), Crashed(), again(), Running(), Crashed(), again(), Running(), Crashed())
    pool.run(Running(), Crashed(), resumes=0)

    assert pool.look() == {once.name}


@pytest.mark.parametrize(
    "states",
    [
        (Running(), Failed()),
        (Running(), Cancelled()),
        (Running(), Cancelling()),
        (Pending(), Cancelling()),
        (Pending(), Cancelled()),
        (Pending(), Running()),
        # Its worker said that it could not be started: it can't be the next time.
        (Pending(), Crashed()),
    ],
    ids=lambda states: " ".join(state.name for state in states),
)
def test_no_other_run_is_begun_again(pool: Pool, states: tuple[State[Any], ...]) -> None:
    run = pool.taken(*states)

    assert pool.look() == set()
    assert pool.names(run)[-1] == states[-1].name


def test_a_run_that_was_taken_and_not_begun_is_begun_again_where_its_worker_is_gone(pool: Pool) -> None:
    run = pool.taken(pid="host:1")
    pool.taken(worker="alive", pid="host:1")
    # Its job has been made, and can begin without its worker.
    pool.taken(kind="kubernetes", pid="cluster:job")
    made_nothing = pool.taken(kind="kubernetes")

    assert pool.look(Waits()) == set(), "it may be beginning"
    assert pool.look() == {run.name, made_nothing.name}
    assert pool.names(run)[-2:] == ["Crashed", RESUMING]
    assert pool.look() == set()


def test_what_is_taken_and_nothing_comes_of_it_is_begun_again_whatever_its_worker_says(pool: Pool) -> None:
    # Its worker was killed and started again under its name; the other's was killed before it had said more.
    named = pool.taken(worker="alive")
    unnamed = pool.run(Pending())

    assert pool.look() == set()
    assert pool.look(Waits(stuck=-60, taken=-60)) == {named.name, unnamed.name}


def test_a_person_is_told_of_one_that_was_never_begun_and_taken_too_often(pool: Pool) -> None:
    run = pool.taken(Pending(), Crashed(), again(), Pending(), resumes=1)

    assert pool.look() == set()
    assert pool.names(run)[-1] == "Crashed"


def test_a_look_that_was_cut_off_in_the_middle_is_made_good_by_the_next(pool: Pool) -> None:
    run = pool.taken(Pending(), Crashed(message=left_runs._GONE))

    assert pool.look() == {run.name}


def test_a_run_that_goes_on_by_its_state_and_gives_no_sign_of_life_is_called_crashed_and_begun_again(
    pool: Pool,
) -> None:
    signed = (datetime.now(UTC) - timedelta(minutes=2)).isoformat()
    silent = pool.run(Pending(), Running(), **{ALIVE: signed})
    unsigned = pool.run(Pending(), Running())

    assert pool.look(Waits()) == set(), "its automation has three minutes"
    assert pool.names(silent)[-1] == "Running"
    soon = Waits(crashed=3600, silent=60)
    assert pool.look(soon) == set(), "it has half a minute to say that it lives"
    assert pool.names(silent)[-1] == "Crashed"
    assert pool.look() == {silent.name}
    assert pool.names(silent)[-2:] == ["Crashed", RESUMING]
    assert pool.names(unsigned)[-1] == "Running", "it is a run of a version that gives no signs"


def test_a_run_that_lived_when_it_was_called_crashed_has_as_many_beginnings_left_as_before(pool: Pool) -> None:
    run = pool.run(Running(), Crashed(), again(), Running(), Crashed(), resumes=1)

    # Its run count is two all the same: the server counts each.
    assert left_runs._times_begun_again(pool.client, run) == 0


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_clock_that_is_ten_minutes_off_changes_nothing(
    minutes: int, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(minutes=minutes)

    run = pool.run(Running(), Crashed())
    monkeypatch.setattr(left_runs, "datetime", Clock)
    assert pool.look(Waits()) == set()
    assert pool.look() == {run.name}
    begins_at = pool.client.read_flow_run(run.id).next_scheduled_start_time
    assert begins_at is not None
    assert begins_at <= datetime.now(UTC) + timedelta(minutes=1)
