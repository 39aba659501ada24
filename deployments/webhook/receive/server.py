"""The HTTP server around the app: uvicorn with h11, hardened against what an app can't see.

h11 and not httptools: Airbyte over plain http asks for an upgrade to HTTP/2 (`Upgrade: h2c`), which httptools takes
for granted, and the body is lost; measured with uvicorn 0.54 and Java's client. h11 answers in HTTP/1.1, body whole.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import select
import sys
import time
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from deployments.webhook.receive.limits import Lobby, peer_of
from infrastructure.screen import LogFormatter

_LONGEST_HEAD_BYTES = 16_384
_KEEP_ALIVE_SECONDS = 5
_GOODBYE_SECONDS = 10
_OPEN_FILES = 16_384


def server_of(
    app: Starlette, host: str, port: int, read_seconds: float, max_connections: int, max_per_peer: int
) -> uvicorn.Server:
    """Return a server that is ready to run.

    Args:
        read_seconds: time in which the head of each request has to arrive, and what is left of a body once its
            request is answered. Until then it is the app that waits for the body, of senders with the secret alone.
        max_connections: how many may owe a request at once; of more, that one is hung up on which has owed longest.
        max_per_peer: the same for one address.
    """
    lobby = Lobby(max_connections, max_per_peer)

    class Protocol(H11Protocol):
        """Hang up on who keeps us waiting, and pass over every wish to speak another protocol."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            self._peer = peer_of(self.client[0] if self.client else None)
            self._deadline: asyncio.TimerHandle | None = None
            self._owe()

        def connection_lost(self, exc: Exception | None) -> None:
            self._owe_nothing()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            # It is None until the first head is there, and that of the request before until the next one is.
            if self.cycle is not None and not self.cycle.response_complete:  # pyright: ignore[reportUnnecessaryComparison]
                self._owe_nothing()

        def on_response_complete(self) -> None:
            # Also where the server has closed the connection: what is not read by the peer keeps it open.
            self._owe()
            super().on_response_complete()

        def pause_writing(self) -> None:
            # Answers are short: only who asks again and again without reading any lets them pile up.
            self.hang_up()

        def is_silent(self) -> bool:
            """Return whether nothing has come that is not read yet."""
            arrived = select.poll()
            arrived.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
            return not arrived.poll(0)

        def hang_up(self) -> None:
            """Close the connection, whether or not what is written to it is read."""
            self.transport.abort()

        def _owe(self) -> None:
            self._owe_nothing()
            # The whole time, however often a byte comes: uvicorn's own timer ends with the first.
            self._deadline = self.loop.call_later(read_seconds, self.hang_up)
            lobby.enter(self._peer, self)

        def _owe_nothing(self) -> None:
            if self._deadline:
                self._deadline.cancel()
                self._deadline = None
                lobby.leave(self._peer, self)

        def _should_upgrade(self) -> bool:
            return False

    _raise_limit_of_files()
    logging.getLogger("uvicorn.error").addFilter(_is_worth_a_line)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Protocol,
        ws="none",
        lifespan="on",
        # An access log would hold the secrets of the paths.
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
        h11_max_incomplete_event_size=_LONGEST_HEAD_BYTES,
    )
    return uvicorn.Server(config)


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
