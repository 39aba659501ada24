"""A run that lives says so, and takes it back when it is called crashed: on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling, Crashed, Failed, Pending, Running, Scheduled

from flows.alerts.hooks import with_alerts
from flows.engine.sinks import sign_of_life
from flows.engine.sinks.sign_of_life import SignsOfLife, signs_of_life_of
from flows.pipelines.after_crash import _left_since_by_states
from infrastructure.server.automations import RESUMES_TAG, RESUMING, SAID_GONE
from infrastructure.server.left_runs import ALIVE
from tests.support.processes import wait_until

GONE = Crashed(message=f"It sent no heartbeat for 60 seconds{SAID_GONE}")
Begin = Callable[..., FlowRun]


@pytest.fixture
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def begin(client: SyncPrefectClient, fresh: str) -> Begin:
    """Return a function that makes a run of a deployment that has been in these states since it began."""

    def run(*states: State[Any], resumes: int = 2) -> FlowRun:
        flow_id = client.create_flow_from_name(fresh)
        tags = [f"{RESUMES_TAG}{resumes}"] if resumes else []
        run = client.create_flow_run_from_deployment(client.create_deployment(flow_id, fresh, tags=tags))
        for state in (Pending(), Running(), *states):
            client.set_flow_run_state(run.id, state, force=True)
        return client.read_flow_run(run.id)

    return run


class Still(SignsOfLife):
    """Signs of life that are given when they are asked for."""

    def _look(self) -> None:
        pass


@pytest.mark.parametrize("states", [(GONE,), (GONE, Scheduled(name=RESUMING))], ids=["crashed", "resuming"])
def test_a_run_that_lives_and_is_called_crashed_goes_on_and_that_counts_as_no_beginning(
    client: SyncPrefectClient, begin: Begin, states: tuple[State[Any], ...]
) -> None:
    run = begin(*states)
    Still(run).look_once(client, with_sign=True)
    after = client.read_flow_run(run.id)
    assert after.state
    assert after.state.is_running()
    assert after.state.message == sign_of_life._LIVES
    assert after.run_count == run.run_count == 1
    assert after.labels[ALIVE]
    assert _left_since_by_states(run.id, after.run_count, after.start_time) is None, "it is not one that goes on"
    client.set_flow_run_state(run.id, Crashed())
    client.set_flow_run_state(run.id, Scheduled(name=RESUMING))
    client.set_flow_run_state(run.id, Pending())
    client.set_flow_run_state(run.id, Running())
    assert client.read_flow_run(run.id).run_count == 2, "a beginning counts as before"


@pytest.mark.parametrize(
    "state",
    [Crashed(message="Flow run process exited with non-zero status code -9."), Failed(), Cancelling(), Pending()],
    ids=lambda state: state.name,
)
def test_every_other_state_is_left_as_it_is(client: SyncPrefectClient, begin: Begin, state: State[Any]) -> None:
    run = begin(state)
    Still(run).look_once(client, with_sign=False)
    after = client.read_flow_run(run.id)
    assert after.state
    assert after.state.name == state.name


def test_nothing_comes_after_the_last_state(client: SyncPrefectClient, begin: Begin) -> None:
    run = begin(GONE)
    signs = Still(run)
    signs.end()
    signs.look_once(client, with_sign=True)
    after = client.read_flow_run(run.id)
    assert after.state
    assert after.state.is_crashed()


def test_only_runs_that_the_server_begins_again_give_signs(begin: Begin) -> None:
    assert signs_of_life_of(begin(resumes=0)) is None


def test_a_flow_that_is_called_crashed_on_its_way_ends_completed(
    client: SyncPrefectClient, fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.flow_engine import run_flow

    monkeypatch.setattr(sign_of_life, "LOOK_SECONDS", 0.1)

    @with_alerts
    @flow(name=fresh)
    def called_crashed() -> None:
        client.set_flow_run_state(run.id, GONE)
        wait_until(lambda: client.read_flow_run(run.id).state.is_running(), "it is called running again")  # type: ignore[union-attr]

    deployment_id = client.create_deployment(
        client.create_flow_from_name(fresh), fresh, tags=[f"{RESUMES_TAG}1"], entrypoint="x:y"
    )
    run = client.create_flow_run_from_deployment(deployment_id)
    run_flow(called_crashed, flow_run=run)
    after = client.read_flow_run(run.id)
    assert after.state
    assert after.state.is_completed()
    assert after.run_count == 1
