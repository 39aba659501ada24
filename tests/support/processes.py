"""Ports for the processes that tests start, and waiting for what those do."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

_START_SECONDS = 600


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(is_so: Callable[[], object], what: str, seconds: float = _START_SECONDS) -> None:
    """Wait for what another process does; fail the test when it never does."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: waited {seconds:.0f} s for it")
        time.sleep(0.05)
