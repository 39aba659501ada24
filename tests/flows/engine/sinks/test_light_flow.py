"""Flow runs that begin and end without what takes Prefect long."""

from __future__ import annotations

import sys
import threading
import time
from datetime import date
from typing import Any

import pytest
from prefect import flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.alerts.hooks import with_alerts


@with_alerts
@flow
def light(**parameters: Any) -> str:
    return "done"


@flow
def plain(**parameters: Any) -> str:
    return "done"


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.5, "dev", [1, ["a"]], {"a": {"b": [None]}}, {3: "a"}, (1, 2), {1}, date(2026, 11, 28), object()],
)
def test_parameters_are_saved_as_prefect_saves_them(value: object) -> None:
    given = {"value": value}
    assert light.serialize_parameters(given) == plain.serialize_parameters(given)


def test_parameters_that_are_json_need_no_fastapi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi.encoders", None)
    assert light.serialize_parameters({"vars": {"a": [1]}}) == {"vars": {"a": [1]}}


def test_a_flow_run_ends_while_its_heartbeats_sleep(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run of a flow waited up to a second for them."""
    waited_for: list[threading.Thread] = []
    join, awake = threading.Thread.join, threading.Event()

    def noted(thread: threading.Thread, timeout: float | None = None) -> None:
        waited_for.append(thread)
        join(thread, timeout)

    def asleep_until_then(seconds: float) -> None:
        awake.wait(60)

    before = set(threading.enumerate())
    with monkeypatch.context() as patch, temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 30}):
        patch.setattr(threading.Thread, "join", noted)
        patch.setattr(time, "sleep", asleep_until_then)
        light()
    asleep = {thread for thread in set(threading.enumerate()) - before if "heartbeat" in repr(vars(thread)["_args"])}
    awake.set()
    assert asleep
    assert not asleep & set(waited_for)
