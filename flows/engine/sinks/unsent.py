"""What a Prefect server has not taken yet, kept for later: else task runs of a run that has ended run for ever."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from flows.engine.context.state import state_root
from flows.engine.sinks.sending import EVENTS, LINES, BatchSender, Sender
from infrastructure.private_files import private_folder, write_whole

_EVENTS, _LINES = ".events", ".lines"
# The server keeps events for a week; what is older it need not be told.
_KEPT_SECONDS = 7 * 86_400.0


class UnsentEvents:
    """The events and lines that runs of this machine have not sent to a server.

    An event has an id, so that twice is once; a line is there twice when its server was lost while it took it.

    Args:
        folder: shared by all runs of the machine.
        api: the server's address, without credentials; empty for a temporary one of this machine.
    """

    def __init__(self, folder: Path, api: str) -> None:
        self._folder = folder
        self._api = api

    def keep(self, events: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]] = ()) -> bool:
        """Write events and lines down for later; False where the disk does not take them."""
        try:
            for suffix, documents in (_EVENTS, {"events": events}), (_LINES, {"lines": lines}):
                if any(documents.values()):
                    path = private_folder(self._folder) / f"{uuid4().hex}{suffix}"
                    write_whole(path, orjson.dumps({"api": self._api, **documents}))
        except OSError:
            return False
        return True

    def send(self, sender: Sender, lines_alone: bool = False) -> None:
        """Send what is kept for this server, each file by one process, and forget it.

        Raises:
            Exception: what the sender raised; what it was to send stays.
        """
        # A server takes events at once and works them off for seconds, in which every other request waits.
        files = sorted(self._folder.glob(f"*{_LINES}"))
        for path in files if lines_alone else [*files, *sorted(self._folder.glob(f"*{_EVENTS}"))]:
            with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                document = orjson.loads(file.read())
                if document["api"] == self._api:
                    delivery = BatchSender()
                    delivery.send(sender, LINES, document.get("lines") or [])
                    delivery.send(sender, EVENTS, document.get("events") or [])
                    path.unlink()
                elif time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                    path.unlink()


def unsent_events(environ: Mapping[str, str]) -> UnsentEvents:
    """Return the events that are kept in the state folder for the Prefect server in use."""
    from infrastructure.server.client import api_address

    return UnsentEvents(state_root(environ) / "unsent", api_address() or "")
