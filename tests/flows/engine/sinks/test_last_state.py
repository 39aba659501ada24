"""What a flow run came to stays that, when the Prefect server is ill as it is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from prefect import flow
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

from flows.alerts.hooks import with_alerts
from flows.engine.context.reporting import reporting_to
from flows.engine.sinks.last_state import do_beside_the_end, send_lines_beside_the_end
from flows.engine.sinks.sending import Sender
from flows.engine.sinks.unsent import UnsentEvents, unsent_events
from infrastructure.errors import ConfigError
from tests.support.lock_holders import Listener
from tests.support.prefect_api import post
from tests.support.processes import wait_until
from tests.support.road import IllServer, only_way

OpenIllServer = Callable[..., IllServer]


@with_alerts
@flow(flow_run_name="{name}")
def good(name: str) -> str:
    return "done"


@with_alerts
@flow(flow_run_name="{name}")
def bad(name: str) -> str:
    raise ConfigError("the data is bad")


@with_alerts
@flow(flow_run_name="{name}", validate_parameters=False)
def with_a_report(name: str, api: str, said: list[str]) -> None:
    def report() -> None:
        wait_until(lambda: state_of(api, name) == "Completed", "the run is over, and nothing waited for its report")
        said.append("reported")

    do_beside_the_end(report)


@with_alerts
@flow(flow_run_name="{name}")
def with_lines(name: str) -> None:
    at, run = datetime.now(UTC).isoformat(), str(flow_run.get_id())
    line = {"name": "dbt", "level": 20, "message": name, "timestamp": at, "flow_run_id": run}
    assert unsent_events(os.environ).keep([], [line])
    send_lines_beside_the_end()


@pytest.fixture
def ill(prefect_server: str) -> Iterator[OpenIllServer]:
    """Return a function that puts a server that is ill in the place of the well one."""
    with ExitStack() as stack:

        def put(*answers: int, takes_it: bool = False) -> IllServer:
            server = IllServer(prefect_server, list(answers), takes_it)
            return stack.enter_context(only_way(server, {PREFECT_CLIENT_MAX_RETRIES: 2}))

        yield put


def state_of(api: str, name: str) -> str:
    (run,) = post(api, "/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
    return run["state_name"]


@pytest.mark.parametrize("takes_it", [False, True])
@pytest.mark.parametrize("status", [500, 504])
def test_a_server_that_fails_once_at_the_end_is_asked_again(
    prefect_server: str, ill: OpenIllServer, status: int, takes_it: bool
) -> None:
    name = f"good-{uuid4().hex[:8]}"
    server = ill(status, takes_it=takes_it)
    assert good(name) == "done"
    assert state_of(prefect_server, name) == "Completed"
    assert server.asked == 2


@pytest.mark.parametrize("status", [500, 503, 401])
def test_a_run_that_the_server_never_hears_the_end_of_has_done_what_it_did(
    prefect_server: str, ill: OpenIllServer, status: int
) -> None:
    name, listener = f"good-{uuid4().hex[:8]}", Listener()
    ill(*[status] * 3)
    with reporting_to(listener):
        assert good(name) == "done"
    (note,) = listener.notes
    assert note.startswith("This flow run is Completed, and the Prefect server could not be told")
    assert f"(HTTP {status})" in note
    assert state_of(prefect_server, name) == "Running"


def test_a_run_that_failed_says_why_it_failed_and_not_how_the_server_is(
    prefect_server: str, ill: OpenIllServer
) -> None:
    name, listener = f"bad-{uuid4().hex[:8]}", Listener()
    ill(500, 500, 500)
    with reporting_to(listener), pytest.raises(ConfigError, match="the data is bad"):
        bad(name)
    assert listener.notes[0].startswith("This flow run is Failed, and the Prefect server could not be told")


def test_what_no_part_of_a_run_waits_for_is_done_when_it_is_left(prefect_server: str) -> None:
    said: list[str] = []
    with_a_report(f"good-{uuid4().hex[:8]}", prefect_server, said)
    do_beside_the_end(lambda: said.append("at once"))
    assert said == ["reported", "at once"]


def test_lines_that_a_server_could_not_take_beside_the_end_are_sent_after_it(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, sent = f"good-{uuid4().hex[:8]}", UnsentEvents.send

    def once_in_vain(unsent: UnsentEvents, sender: Sender, lines_alone: bool = False) -> None:
        if lines_alone:
            raise ConnectionError("it is away for a moment")
        sent(unsent, sender)

    monkeypatch.setattr(UnsentEvents, "send", once_in_vain)
    with_lines(name)
    found = post(
        prefect_server, "/logs/filter", {"logs": {"level": {"ge_": 20}}, "limit": 200, "sort": "TIMESTAMP_DESC"}
    )
    assert [line["message"] for line in found].count(name) == 1
