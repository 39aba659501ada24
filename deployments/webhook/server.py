"""The HTTP server around the app: uvicorn with h11, hardened against what an app can't see.

h11 and not httptools: Airbyte over plain http asks for an upgrade to HTTP/2 (`Upgrade: h2c`), which httptools takes
for granted, and the body is lost; measured with uvicorn 0.54 and Java's client. h11 answers in HTTP/1.1, body whole.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

_LONGEST_HEAD_BYTES = 16_384
_KEEP_ALIVE_SECONDS = 5
_GOODBYE_SECONDS = 10


def server_of(app: Starlette, host: str, port: int, read_seconds: float, max_connections: int) -> uvicorn.Server:
    """Return a server that is ready to run.

    Args:
        read_seconds: time in which the head of a request has to arrive.
        max_connections: more are answered 503.
    """

    class Protocol(H11Protocol):
        """Hang up on who connects and says nothing, and pass over every wish to speak another protocol."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            self._head_timer = self.loop.call_later(read_seconds, self._hang_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_timer.cancel()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None:  # pyright: ignore[reportUnnecessaryComparison]  (it is None until a request's head is there)
                self._head_timer.cancel()

        def _hang_up(self) -> None:
            self.transport.close()

        def _should_upgrade(self) -> bool:
            return False

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
        limit_concurrency=max_connections,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
        h11_max_incomplete_event_size=_LONGEST_HEAD_BYTES,
    )
    return uvicorn.Server(config)


def log_to_console(level: int = logging.INFO) -> None:
    """Log to stderr, one line per record, with times in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler])
    # httpx logs every address that it asks.
    logging.getLogger("httpx").setLevel(logging.WARNING)
