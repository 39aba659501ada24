"""How much is taken from whom: a token bucket per peer."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

# Peers that are remembered; who was quiet longest is forgotten first, and starts anew with a full bucket.
_MAX_PEERS = 10_000


class RateLimit:
    """Let each peer do `burst` things at once, and `per_second` in the long run."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        # Peer → tokens left, and when they were counted.
        self._peers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def retry_after(self, peer: str) -> float:
        """Take a token, and return 0; without one, return the seconds until there is one again."""
        now = self._clock()
        tokens, counted_at = self._peers.pop(peer, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - counted_at) * self._per_second)
        allowed = tokens >= 1
        self._peers[peer] = (tokens - 1 if allowed else tokens, now)
        if len(self._peers) > _MAX_PEERS:
            self._peers.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._per_second
