"""A Prefect server that is slow, goes away in the middle of a run, and comes back or does not."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from flows.engine import recorder
from flows.engine.events import DbtEvent
from flows.engine.ledger import read_ledger
from flows.engine.reporting import reporting_to
from flows.local_run import Request, run_locally
from flows.pipeline import dbt_full_pipeline
from infrastructure.errors import UpstreamUnavailable
from infrastructure.profiles import load_profile
from tests.conftest import SetUpTarget
from tests.flows.recorded import Recorded

SHOP = str(Path(__file__).parents[1] / "projects" / "shop")
# Of the shop, with its seeds and tests.
NODES = 14


class Road:
    """The way to a server, which can be slow or closed: connections on it are cut, and new ones refused."""

    def __init__(self, to: str, delay_seconds: float = 0.0) -> None:
        address = urlsplit(to)
        self._to = (address.hostname or "127.0.0.1", address.port or 80)
        self._delay_seconds = delay_seconds
        self._is_open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        self._server = self._loop.run_until_complete(asyncio.start_server(self._carry, sock=listener))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut what is on it, and let nobody on."""
        self._is_open = False
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(30)

    def open(self) -> None:
        """Let everybody on again."""
        self._is_open = True

    def end(self) -> None:
        """Give the port back."""
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._server.close()

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._is_open:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._to)
        self._writers |= {writer, back}
        await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        self._writers -= {writer, back}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self._delay_seconds)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class Witness:
    """Close the road when the first node starts, and open it again when so many have ended."""

    def __init__(self, road: Road, open_after: int | None) -> None:
        self._road, self._open_after = road, open_after
        self._ended = 0
        self._is_closed = False
        self.notes: list[str] = []

    def stage(self, text: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def event(self, event: DbtEvent) -> None:
        if event.node is None:
            return
        if not self._is_closed:
            self._is_closed = True
            self._road.close()
        self._ended += event.node.finished_at is not None
        if self._ended == self._open_after:
            self._road.open()


@pytest.fixture
def road(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    """Return the only way that this process knows to the server; what is on it arrives late."""
    way = Road(prefect_server, delay_seconds=0.05)
    monkeypatch.setenv("PREFECT_API_URL", way.url)
    with temporary_settings({PREFECT_API_URL: way.url}):
        yield way
    way.end()


def orders(target: str) -> int:
    with closing(duckdb.connect(load_profile(target).output["path"], read_only=True)) as connection:
        (found,) = connection.execute("select count(*) from orders").fetchone() or (0,)
        return found


def test_a_slow_server_that_goes_away_and_comes_back_gets_every_node(
    prefect_server: str, set_up_target: SetUpTarget, road: Road
) -> None:
    target = set_up_target()
    witness = Witness(road, open_after=10)
    with reporting_to(witness):
        state = dbt_full_pipeline(target=target, project_dir=SHOP, return_state=True)
    assert state.is_completed()
    assert state.state_details.flow_run_id
    recorded = Recorded(prefect_server, state.state_details.flow_run_id)
    assert {run["state_name"] for run in recorded.node_runs(NODES).values()} == {"Completed"}
    assert recorded.flow_run()["state_name"] == "Completed"
    assert not [note for note in witness.notes if "did not take" in note]


def test_a_server_that_does_not_come_back_costs_no_node_and_the_run_says_so(
    set_up_target: SetUpTarget, road: Road, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recorder, "CLOSE_SECONDS", 1.0)
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    target = set_up_target()
    witness = Witness(road, open_after=None)
    request = Request(
        target=target,
        select=None,
        exclude=None,
        selector=None,
        full_refresh=False,
        vars={},
        project_dir=SHOP,
        freshness=True,
        docs=False,
        resume=False,
        wait=True,
        with_data=None,
    )
    # Once more, and not five times: nobody will answer.
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}),
        reporting_to(witness),
        pytest.raises(UpstreamUnavailable) as caught,
    ):
        run_locally(request)
    assert "The Prefect server went away during the run and did not come back" in str(caught.value)
    assert str(caught.value).endswith("--resume")
    (ledger,) = (tmp_path / "state").glob("*/*/runs/*/ledger.jsonl")
    entries = list(read_ledger(ledger))
    ended = {
        entry["event"]["unique_id"] for entry in entries if entry["kind"] == "node" and entry["event"]["finished_at"]
    }
    assert len(ended) == NODES
    assert entries[-1]["is_ok"]
    (note,) = [note for note in witness.notes if "did not take" in note]
    assert note.endswith(f"{ledger} has them all.")
    road.open()
    assert orders(target) == 4
