"""How long a run may take: from where the limit is set to the end, waiting included."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from infrastructure.errors import ConfigError, RunTimedOut


@dataclass(frozen=True)
class Deadline:
    """The moment at which a run is stopped.

    Attributes:
        seconds: the time that was given, to be named in messages.
        at: by the clock of `time.monotonic`.
    """

    seconds: float
    at: float

    def left_seconds(self) -> float:
        """Return how long it is till then; 0 when it is past."""
        return max(0.0, self.at - time.monotonic())

    @property
    def spoken(self) -> str:
        """Return the time that was given, in words."""
        return f"{self.seconds / 60:g} minutes" if self.seconds > 60 else f"{self.seconds:g} seconds"


_deadline: ContextVar[Deadline | None] = ContextVar("tributary_deadline", default=None)


def current_deadline() -> Deadline | None:
    """Return the deadline in force; None when a run may take as long as it takes."""
    return _deadline.get()


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Give what runs inside the block so much time; of two limits in force the earlier one counts.

    Raises:
        ConfigError: the time is not more than nothing.
    """
    if seconds is None:
        yield
        return
    if not seconds > 0:
        raise ConfigError(f"A run can't be given {seconds:g} seconds. Give it more than 0, or no limit.")
    outer, mine = _deadline.get(), Deadline(seconds, time.monotonic() + seconds)
    token = _deadline.set(outer if outer and outer.at < mine.at else mine)
    try:
        yield
    finally:
        _deadline.reset(token)


def require_time(what: str) -> None:
    """Go on while there is time.

    Raises:
        RunTimedOut: there is none left; `what` says what came to nothing, such as "Target dev was waited for".
    """
    deadline = _deadline.get()
    if deadline and not deadline.left_seconds():
        raise RunTimedOut(f"{what}: the {deadline.spoken} that the run was given are over.")


@contextmanager
def calling_at(deadline: Deadline | None, act: Callable[[], None]) -> Iterator[None]:
    """Call a function from a thread of its own when the deadline comes before the block ends."""
    if deadline is None:
        yield
        return
    timer = threading.Timer(deadline.left_seconds(), act)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
