"""A server of the tests' own, answering beside them for the time of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer
from threading import Thread
from typing import TypeVar

_SomeServer = TypeVar("_SomeServer", bound=BaseServer)


@contextmanager
def served(server: _SomeServer) -> Iterator[_SomeServer]:
    """Have a server answer in a thread, and close it at the end of the block."""
    # It looks as often whether it is to stop.
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
