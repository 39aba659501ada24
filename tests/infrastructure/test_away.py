"""A server that is away is asked once, by a process that has given it up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from infrastructure.server import away
from infrastructure.server.away import is_server_away, not_waiting_for_one_away, note_server_away
from infrastructure.workspace import ROOT


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Put a server in the place of Prefect's that takes connections and answers nothing."""
    monkeypatch.setattr(away, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 5}):
            yield server
    note_server_away(False)


@pytest.mark.parametrize("is_made_before", [True, False])
def test_a_server_that_is_away_is_asked_once_and_not_for_long(silent: socket.socket, is_made_before: bool) -> None:
    note_server_away(True)
    with ExitStack() as stack:
        before = stack.enter_context(get_client(sync_client=True)) if is_made_before else None
        stack.enter_context(not_waiting_for_one_away(before))
        client = before or stack.enter_context(get_client(sync_client=True))
        with pytest.raises(httpx.ReadTimeout):
            client.request("GET", "/health")
    silent.setblocking(False)
    silent.accept()[0].close()
    with pytest.raises(BlockingIOError):
        silent.accept()


def test_a_process_ends_with_events_that_a_server_which_is_away_did_not_take(silent: socket.socket) -> None:
    from prefect.settings import PREFECT_API_URL

    program = (
        "from prefect.events import emit_event\n"
        "from infrastructure.server.away import note_server_away\n"
        "for number in range(20): emit_event('x', resource={'prefect.resource.id': f'a.{number}'})\n"
        "note_server_away(True)\n"
    )
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": str(ROOT)}
    # Each event would be tried for a minute and more.
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def test_others_are_asked_as_usual(silent: socket.socket) -> None:
    note_server_away(False)
    with get_client(sync_client=True) as client, not_waiting_for_one_away(client):
        assert not is_server_away()
        assert client._client.timeout.read > 1
        assert PREFECT_CLIENT_MAX_RETRIES.value() == 5
