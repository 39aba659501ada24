"""The HTTP server around the app: uvicorn with h11, hardened against what an app can't see.

h11 and not httptools: Airbyte over plain http asks for an upgrade to HTTP/2 (`Upgrade: h2c`), which httptools takes
for granted, and the body is lost; measured with uvicorn 0.54 and Java's client. h11 answers in HTTP/1.1, body whole.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import select
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from deployments.webhook.receive.door import LONGEST_HEAD_BYTES, Door, listen
from deployments.webhook.receive.limits import Lobby
from infrastructure.screen import LogFormatter

logger = logging.getLogger(__name__)

_KEEP_ALIVE_SECONDS = 5
_GOODBYE_SECONDS = 10
_OPEN_FILES = 16_384
_CANT_LISTEN = 3


@dataclass(frozen=True)
class Bounds:
    """What one may claim of the server who has not shown the secret.

    Attributes:
        read_seconds: time in which the head of each request has to arrive, and what is left of a body once its
            request is answered. Until then it is the app that waits for the body, of senders with the secret alone.
        in_all: how many connections may owe a request at once; of more, the wait of that one is ended which has owed
            longest.
        per_peer: the same for one address.
    """

    read_seconds: float
    in_all: int
    per_peer: int


class ReceiverServer(uvicorn.Server):
    """Serve who comes through the door."""

    def __init__(self, config: uvicorn.Config, bounds: Bounds, is_sender: Callable[[bytes], bool]) -> None:
        super().__init__(config)
        self._bounds = bounds
        self._lobby = Lobby(bounds.in_all, bounds.per_peer)
        self._door = Door(self._lobby, bounds.read_seconds, is_sender, self._let_in)
        self._entering: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, then listen.

        Args:
            sockets: not used; the configuration says where to listen.
        """
        try:
            listening = listen(self.config.host, self.config.port)
        except OSError as exc:
            logger.error("The receiver can't listen on %s, port %s: %s", self.config.host, self.config.port, exc)
            sys.exit(_CANT_LISTEN)
        await super().startup(sockets=[])
        self._door.open(listening)
        self.servers.append(self._door)  # pyright: ignore[reportArgumentType]  (it closes as asyncio's own do)

    def _let_in(self, connection: socket.socket, peer: str, first: bytes) -> None:
        task = asyncio.create_task(self._enter(connection, peer, first))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _enter(self, connection: socket.socket, peer: str, first: bytes) -> None:
        def protocol() -> Conversation:
            made = Conversation(self.config, self.server_state, self.lifespan.state)
            made.begin_with(self._lobby, self._bounds.read_seconds, peer, first)
            return made

        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
        except OSError:  # It is gone by now.
            connection.close()


class Conversation(H11Protocol):
    """Hang up on who keeps us waiting, and pass over every wish to speak another protocol."""

    def begin_with(self, lobby: Lobby, read_seconds: float, peer: str, first: bytes) -> None:
        """Say where to wait and how long, who is there, and what was said already."""
        self._lobby, self._read_seconds = lobby, read_seconds
        self._peer, self._first = peer, first
        self._deadline: asyncio.TimerHandle | None = None
        self._is_last_call = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._owe()
        self.data_received(self._first)
        self._first = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self._owe_nothing()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        # It is None until the first head is there, and that of the request before until the next one is.
        if self.cycle is not None and not self.cycle.response_complete:  # pyright: ignore[reportUnnecessaryComparison]
            self._owe_nothing()
        elif self._is_last_call:
            self.hang_up()

    def on_response_complete(self) -> None:
        # Also where the server has closed the connection: what is not read by the peer keeps it open.
        self._owe()
        super().on_response_complete()

    def pause_writing(self) -> None:
        # Answers are short: only who asks again and again without reading any lets them pile up.
        self.hang_up()

    def end_wait(self) -> None:
        """Hang up, unless something has come that this turn of the loop or the next reads: then see what it is."""
        arrived = select.poll()
        arrived.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._is_last_call = True
        if not arrived.poll(0):
            self.hang_up()

    def hang_up(self) -> None:
        """Close the connection, whether or not what is written to it is read."""
        self.transport.abort()

    def _owe(self) -> None:
        self._owe_nothing()
        # The whole time, however often a byte comes: uvicorn's own timer ends with the first.
        self._deadline = self.loop.call_later(self._read_seconds, self.hang_up)
        self._lobby.enter(self._peer, self)

    def _owe_nothing(self) -> None:
        self._is_last_call = False
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
            self._lobby.leave(self._peer, self)

    def _should_upgrade(self) -> bool:
        return False


def server_of(
    app: Starlette, host: str, port: int, bounds: Bounds, is_sender: Callable[[bytes], bool]
) -> ReceiverServer:
    """Return a server that is ready to run.

    Args:
        is_sender: whether the head of a request shows the secret: who does is served first.
    """
    _raise_limit_of_files()
    logging.getLogger("uvicorn.error").addFilter(_is_worth_a_line)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Conversation,
        ws="none",
        lifespan="on",
        # An access log would hold the secrets of the paths.
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
        h11_max_incomplete_event_size=LONGEST_HEAD_BYTES,
    )
    return ReceiverServer(config, bounds, is_sender)


def _raise_limit_of_files() -> None:
    """Let this process have as many connections as the system allows, not as many as a shell starts with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft < wanted:
        with suppress(ValueError, OSError):  # Some systems have a lower limit than they say.
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return False for what uvicorn says of each request that is no HTTP: anybody could fill the disk with it."""
    return record.msg != "Invalid HTTP request received."


def log_to_console(level: int = logging.INFO) -> None:
    """Log to stderr, one line per record, with times in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = LogFormatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler])
    # httpx logs every address that it asks.
    logging.getLogger("httpx").setLevel(logging.WARNING)
