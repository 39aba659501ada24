"""A way to a server that a test can close, slow down and let hang: a TCP proxy."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

_SomeRoad = TypeVar("_SomeRoad", bound="Road")


class Road:
    """The way to a server, which can be slow or closed: connections on it are cut, and new ones refused."""

    def __init__(self, to: str, delay_seconds: float = 0.0) -> None:
        address = urlsplit(to)
        self._to = (address.hostname or "127.0.0.1", address.port or 80)
        self._delay_seconds = delay_seconds
        self._is_open = True
        self._goes = asyncio.Event()
        self._goes.set()
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

    def hang(self, hangs: bool = True) -> None:
        """Keep what is sent either way, or let all of it go on."""
        self._loop.call_soon_threadsafe(self._goes.clear if hangs else self._goes.set)

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
        await asyncio.gather(self._requests(reader, back, writer), self._pass_on(there, writer))
        self._writers -= {writer, back}

    async def _requests(
        self, reader: asyncio.StreamReader, there: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        """Carry what is asked; `back` leads to who asks."""
        await self._pass_on(reader, there)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self._delay_seconds)
                await self._goes.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextmanager
def only_way(road: _SomeRoad, settings: dict[Any, Any] | None = None) -> Iterator[_SomeRoad]:
    """Have this process reach the server by a road alone while the block runs, and end the road.

    Prefect's client has one worker that sends events, which stays with the address that it began with: one that began
    here would hold back the events of all later tests, and one that was there before would not know the road.

    Args:
        settings: others of Prefect's that are in force meanwhile.
    """
    _deliver()
    try:
        with temporary_settings({PREFECT_API_URL: road.url, **(settings or {})}):
            yield road
    finally:
        road.open()
        _deliver()
        road.end()


def _deliver() -> None:
    """Send what Prefect's client holds back, and end what holds it."""
    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=30)


class IllServer(Road):
    """The way to a server that answers with these statuses where a flow run's last state is set, then well again.

    Args:
        takes_it: whether the state is set all the same, so that only the answer is ill.
    """

    def __init__(self, to: str, answers: list[int], takes_it: bool = False) -> None:
        self._answers = answers
        self._takes_it = takes_it
        self.asked = 0
        super().__init__(to)

    async def _requests(
        self, reader: asyncio.StreamReader, there: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                is_last = b"/set_state" in head and json.loads(body)["state"]["type"] in ("COMPLETED", "FAILED")
                self.asked += is_last
                if is_last and self._answers:
                    if self._takes_it:
                        await self._ask_aside(head, body)
                    # At once: how long Prefect's client waits of itself is not what is tested.
                    ill = f"HTTP/1.1 {self._answers.pop(0)} Ill\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n"
                    back.write(ill.encode())
                    continue
                there.write(head + body)
                if b"upgrade: websocket" in head.lower():
                    break
        await self._pass_on(reader, there)

    async def _ask_aside(self, head: bytes, body: bytes) -> None:
        answer, question = await asyncio.open_connection(*self._to)
        question.write(head + body)
        await answer.readuntil(b"\r\n\r\n")
        question.close()
