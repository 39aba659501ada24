"""A flow that waits, in this process, and is cancelled on a server."""

from __future__ import annotations

import signal
import threading
from inspect import signature
from typing import Any, Literal

import cloudpickle
import pytest
from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ParameterTypeError

from flows.engine.context.run_context import current_flow_run
from flows.engine.sinks import stopping
from flows.engine.sinks.stopping import stoppable
from flows.pipelines.full import dbt_full_pipeline
from tests.support.prefect_api import ask, post

Direction = Literal["up", "down"]

told: list[str] = []


def tell(flow: Flow[..., object], flow_run: FlowRun, state: State[object]) -> None:
    told.append(f"{flow.name}: {state.message}")


def wait_to_be_stopped() -> None:
    """Wait for what never comes, unless a signal interrupts it."""
    threading.Event().wait(120)
    pytest.fail("nothing stopped this flow")


@flow(on_cancellation=[tell])
@stoppable
def waiting(api: str, state: str) -> None:
    """Be cancelled as soon as it runs."""
    run = current_flow_run()
    assert run
    post(api, f"/flow_runs/{run.id}/set_state", {"state": {"type": state}})
    wait_to_be_stopped()


@flow
@stoppable
def inner() -> None:
    """Be stopped by what stops the flow around it."""
    wait_to_be_stopped()


@flow(on_cancellation=[tell])
@stoppable
def outer(api: str, state: str) -> None:
    """Be cancelled while another flow runs inside of it."""
    run = current_flow_run()
    assert run
    post(api, f"/flow_runs/{run.id}/set_state", {"state": {"type": state}})
    inner()


@flow
@stoppable
def moving(direction: Direction = "up") -> str:
    """Take a parameter whose type has a name in this module alone."""
    return direction


def test_parameters_are_checked_against_types_that_the_flows_module_names() -> None:
    assert moving.validate_parameters({"direction": "down"}) == {"direction": "down"}
    with pytest.raises(ParameterTypeError):
        moving.validate_parameters({"direction": "left"})


@pytest.mark.parametrize("work", [waiting, outer])
@pytest.mark.parametrize("state", ["CANCELLING", "CANCELLED"])
def test_a_cancel_on_the_server_stops_a_flow_and_is_told(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch, work: Flow[..., None], state: str
) -> None:
    monkeypatch.setattr(stopping, "LOOK_SECONDS", 0.2)
    told.clear()
    ended: Any = work(prefect_server, state, return_state=True)
    assert (ended.name, ended.message) == ("Cancelled", "Cancelled on the Prefect server.")
    assert told == [f"{work.name}: Cancelled on the Prefect server."]
    flow_run = ask("GET", f"{prefect_server}/flow_runs/{ended.state_details.flow_run_id}").json()
    assert flow_run["state_type"] == "CANCELLED"


def test_a_signal_ends_a_flow_cancelled_and_tells_nobody(prefect_server: str) -> None:
    @flow(on_cancellation=[tell])
    @stoppable
    def stopped() -> None:
        signal.raise_signal(signal.SIGTERM)

    told.clear()
    ended = stopped(return_state=True)
    assert (ended.name, ended.message) == ("Cancelled", "Stopped by SIGTERM.")
    assert told == []


def test_a_flow_that_can_be_stopped_can_be_served() -> None:
    """Prefect pickles the flows that it serves."""
    served = cloudpickle.loads(cloudpickle.dumps(dbt_full_pipeline))
    assert signature(served.fn) == signature(dbt_full_pipeline.fn)


def test_outside_of_a_flow_run_a_stop_goes_on_as_it_is() -> None:
    @stoppable
    def work() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
