"""Events that a Prefect server was not there to take, kept for the next run: else their task runs run for ever."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from flows.engine.context.state import state_root
from infrastructure.private_files import private_folder, write_whole

# The server keeps events for a week; what is older it need not be told.
_KEPT_SECONDS = 7 * 86_400.0
_BATCH = 200


class UnsentEvents:
    """The events that runs of this machine could not send to a server; each has an id, so that twice is once.

    Args:
        folder: shared by all runs of the machine.
        api: the server's address, without credentials; empty for a temporary one of this machine.
    """

    def __init__(self, folder: Path, api: str) -> None:
        self._folder = folder
        self._api = api

    def keep(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Write events down for a later run; a disk that is full costs them."""
        with contextlib.suppress(OSError):
            path = private_folder(self._folder) / f"{uuid4().hex}.events"
            write_whole(path, orjson.dumps({"api": self._api, "events": events}))

    def send(self, send: Callable[[str, bytes], None]) -> None:
        """Send what is kept for this server, each file by one process, and forget it.

        Raises:
            Exception: what the sender raised; what it was to send stays.
        """
        for path in sorted(self._folder.glob("*.events")):
            with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                document = orjson.loads(file.read())
                if document["api"] == self._api:
                    events = document["events"]
                    for first in range(0, len(events), _BATCH):
                        send("/events", orjson.dumps(events[first : first + _BATCH]))
                    path.unlink()
                elif time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                    path.unlink()


def unsent_events(environ: Mapping[str, str]) -> UnsentEvents:
    """Return the events that are kept in the state folder for the Prefect server in use."""
    from infrastructure.server.client import api_address

    return UnsentEvents(state_root(environ) / "unsent", api_address() or "")
