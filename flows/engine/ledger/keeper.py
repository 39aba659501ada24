"""Bring what stands in a run's ledger to safety while the run goes on: onto the disk, and off the machine."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import Self

from flows.engine.context.reporting import current_reporter
from flows.engine.context.shared.bucket import ANSWER_SECONDS
from flows.engine.context.shared.files import SharedLedger
from flows.engine.context.shared.state import why
from flows.engine.context.shared.target import SharedTarget
from flows.engine.ledger.ledger import Ledger
from infrastructure.errors import TributaryError, UpstreamUnavailable

# At least so long between two times: what ends meanwhile goes together. With the time that a store takes to answer,
# a node's end is off the machine within five seconds.
PAUSE_SECONDS = 1.5
# After a store did not answer.
_LONGER_PAUSE_SECONDS = 10.0


class Keeper:
    """A thread that follows a ledger, so that dbt's lines wait neither for a disk nor for a store.

    Args:
        shared: where the ledger is sent; None where state is a folder.
    """

    def __init__(self, ledger: Ledger, shared: SharedTarget | None) -> None:
        self._ledger = ledger
        self._shared = shared
        self._run = ledger.path.parent.name
        self._sent: SharedLedger | None = shared.ledger(self._run) if shared else None
        self._done = threading.Event()
        self._trouble: TributaryError | None = None
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._follow,), name="tributary-ledger", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._ledger.has_news.set()
        self._thread.join(ANSWER_SECONDS)
        with suppress(OSError):
            self._ledger.sync()
        if self._shared and self._sent:
            self._send_the_rest(self._shared, self._sent)

    def _follow(self) -> None:
        with suppress(OSError):
            # A new file is found after a power cut where its folder was synced as well.
            folder = os.open(self._ledger.path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        while not self._done.is_set():
            self._ledger.has_news.wait(_LONGER_PAUSE_SECONDS if self._trouble else None)
            if self._done.is_set():
                return
            self._ledger.has_news.clear()
            with suppress(OSError):  # Writing says what is wrong with the disk.
                self._ledger.sync()
            if self._sent:
                self._send(self._sent)
            self._done.wait(_LONGER_PAUSE_SECONDS if self._trouble else PAUSE_SECONDS)

    def _send(self, sent: SharedLedger) -> None:
        try:
            if lines := self._ledger.lines_from(sent.sent):
                sent.send(lines)
            self._trouble = None
        except TributaryError as exc:
            if self._trouble is None:
                current_reporter().note(
                    f"What this run does is recorded on this machine only for now: {why(exc)}. It is tried again "
                    "while the run goes on."
                )
            self._trouble = exc

    def _send_the_rest(self, shared: SharedTarget, sent: SharedLedger) -> None:
        """Send what the run is over with; a store that is away ends no run."""
        try:
            if self._thread.is_alive():
                # It waits for the store. A run that was stopped has to end soon.
                raise self._trouble or UpstreamUnavailable("the store does not answer")
            sent.send_whole(self._ledger.lines_from(0))
        except TributaryError as exc:
            current_reporter().note(
                f"The record of this run could not be kept for other machines: {why(exc)}. It is in "
                f"{self._ledger.path}, and this machine's next run sends it unless another machine has run before: "
                "there, --resume and --changed do again what they don't know of."
            )
            return
        try:
            shared.keep(self._run)
        except (TributaryError, OSError) as exc:
            current_reporter().note(
                f"What this run built could not be kept for other machines: {why(exc)}. There, the next run with "
                "--changed finds it in this run's record."
            )
