"""Ports for the processes that tests start, and waiting for what those do."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

_START_SECONDS = 600
# How long until it is looked again: at once at first, and less often the longer it takes, as looking takes from the
# processor what is waited for.
_LEAST_SECONDS, _MOST_SECONDS, _OF_THE_WAIT = 0.02, 0.25, 0.1


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(is_so: Callable[[], object], what: str, seconds: float = _START_SECONDS) -> None:
    """Wait for what another process does; fail the test when it never does."""
    begun = time.monotonic()
    while not is_so():
        waited = time.monotonic() - begun
        if waited > seconds:
            pytest.fail(f"{what}: waited {seconds:.0f} s for it")
        time.sleep(min(max(_LEAST_SECONDS, waited * _OF_THE_WAIT), _MOST_SECONDS))
