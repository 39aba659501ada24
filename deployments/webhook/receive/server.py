"""The HTTP server of the app: uvicorn with h11, hardened against what an app can't see.

h11 and not httptools: Airbyte over plain http asks for an upgrade to HTTP/2 (`Upgrade: h2c`), which httptools assumes
to happen, and the body is lost; measured with uvicorn 0.54 and Java's client. h11 answers in HTTP/1.1, body whole.
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
    """The limits of connections without the secret.

    Attributes:
        read_seconds: time in which the head of each request has to arrive, and the rest of a body once its request is
            answered. Before that, the app waits for the body, only for requests with the secret.
        in_all: how many connections may wait for a request at once; beyond it, the one that has waited longest is
            closed.
        per_peer: the same for one address.
    """

    read_seconds: float
    in_all: int
    per_peer: int


class ReceiverServer(uvicorn.Server):
    """Serve the connections that the door lets in."""

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
        except OSError:  # It is closed by now.
            connection.close()


class Conversation(H11Protocol):
    """Close connections that are too slow, and ignore every request to upgrade the protocol."""

    def begin_with(self, lobby: Lobby, read_seconds: float, peer: str, first: bytes) -> None:
        """Set the lobby, the time to wait, the peer and the bytes that were read already."""
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
        # It is None until the first head has arrived, and that of the previous request until the next head has.
        if self.cycle is not None and not self.cycle.response_complete:  # pyright: ignore[reportUnnecessaryComparison]
            self._owe_nothing()
        elif self._is_last_call:
            self.hang_up()

    def on_response_complete(self) -> None:
        # Also where the server has closed the connection: data that the peer does not read keeps it open.
        self._owe()
        super().on_response_complete()

    def pause_writing(self) -> None:
        # Answers are short: they pile up only for a peer that keeps sending without reading.
        self.hang_up()

    def end_wait(self) -> None:
        """Close the connection, unless data has arrived that is read in this turn of the loop or the next."""
        arrived = select.poll()
        arrived.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._is_last_call = True
        if not arrived.poll(0):
            self.hang_up()

    def hang_up(self) -> None:
        """Close the connection, whether or not the peer has read everything."""
        self.transport.abort()

    def _owe(self) -> None:
        self._owe_nothing()
        # For the whole head: uvicorn's own timer ends with the first byte.
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
        is_sender: whether the head of a request has the secret; such requests are served first.
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
        # An access log would contain the secrets in the paths.
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
        h11_max_incomplete_event_size=LONGEST_HEAD_BYTES,
    )
    return ReceiverServer(config, bounds, is_sender)


def _raise_limit_of_files() -> None:
    """Raise the limit of open files to what the system allows; a shell starts with less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft < wanted:
        with suppress(ValueError, OSError):  # Some systems have a lower limit than they report.
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return False for uvicorn's line about requests that are not HTTP, with which any client could fill the disk."""
    return record.msg != "Invalid HTTP request received."


def log_to_console(level: int = logging.INFO) -> None:
    """Log to stderr, one line per record, with times in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = LogFormatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler])
    # httpx logs the address of every request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
