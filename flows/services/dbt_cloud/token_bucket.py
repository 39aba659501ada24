"""A token bucket: so many requests a second over time, with room for a burst, and one pause for all."""

from __future__ import annotations

import asyncio
import time


class TokenBucket:
    """Let requests through at a rate; a request that finds it empty waits in line.

    Its own clock is never behind: a place is given out when it is asked for, so that no waiter has to be woken.
    """

    def __init__(self, per_second: float, burst: float) -> None:
        self.per_second = per_second
        self.burst = max(1.0, burst)
        self._free = self.burst
        self._counted_at = time.monotonic()
        self._open_at = 0.0

    async def take(self) -> float:
        """Wait for a place and return how long that took, in seconds."""
        began = time.monotonic()
        wait = self.reserve(began)
        if wait > 0:
            await asyncio.sleep(wait)
        # A pause may have begun while this request waited for its place.
        while (closed := self._open_at - time.monotonic()) > 0:  # noqa: ASYNC110  (a time is waited for, no event)
            await asyncio.sleep(closed)
        return time.monotonic() - began

    def pause(self, seconds: float) -> None:
        """Let no request through for this long; the longest pause counts. After it, there is no saved burst."""
        self._open_at = max(self._open_at, time.monotonic() + seconds)
        self._free = min(self._free, 1.0)
        self._counted_at = max(self._counted_at, self._open_at)

    def reserve(self, now: float) -> float:
        """Reserve a place and return in how many seconds it comes."""
        if now > self._counted_at:
            self._free = min(self.burst, self._free + (now - self._counted_at) * self.per_second)
            self._counted_at = now
        self._free -= 1
        until_open = max(0.0, self._open_at - now)
        return until_open + max(0.0, -self._free / self.per_second)
