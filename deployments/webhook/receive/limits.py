"""Limits per peer: wrong secrets by a token bucket, open connections by closing the one that waited longest.

Requests with the right secret never count: behind a proxy, all senders have one address.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Generic, Protocol, TypeVar

# How many peers are remembered; the one that was quiet longest is forgotten first, and gets a full bucket again.
_MAX_PEERS = 10_000
# The network that a provider gives to one customer, which counts as one peer.
_IPV6_PREFIX = 64

Made = TypeVar("Made")


def peer_of(host: str | None) -> str:
    """Return the peer of an address: itself, its network for IPv6, or one peer for all without an address."""
    try:
        address = ip_address(host or "")
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((int(address), _IPV6_PREFIX), strict=False))
    return str(address)


class RateLimit:
    """Allow each peer `burst` actions at once, and `per_second` in the long run."""

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


class Seldom(Generic[Made]):
    """Compute a value at most a few times a second, and return the last one in between."""

    def __init__(
        self,
        make: Callable[[], Awaitable[Made]],
        per_second: float = 2,
        burst: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._rate = RateLimit(per_second, burst, clock)
        self._last: list[Made] = []

    async def get(self) -> Made:
        """Return the value, or raise what computing it raises."""
        if not self._last or not self._rate.retry_after("anybody"):
            self._last = [await self._make()]
        return self._last[0]


class Guest(Protocol):
    """A connection whose request has not arrived."""

    def end_wait(self) -> None:
        """Go on with what has arrived of the request, or close the connection."""
        ...


class Lobby:
    """Hold the connections that wait for a request, and bound their number: in all, and per peer.

    A connection waits until the head of a request has arrived, and again after its answer. Beyond a bound, a new
    connection is not refused: the one that has waited longest is closed.
    """

    def __init__(self, in_all: int, per_peer: int) -> None:
        self._in_all = in_all
        self._per_peer = per_peer
        # Peer → its connections, the one that has waited longest first.
        self._peers: dict[str, dict[Guest, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, peer: str, guest: Guest) -> None:
        """Add a connection that waits for a request from now on."""
        self.leave(peer, guest)
        own = self._peers.setdefault(peer, {})
        own[guest] = None
        self._count += 1
        if len(own) > self._per_peer:
            self._make_room(peer)
        if self._count > self._in_all:
            self._make_room(self._most_crowded())

    def leave(self, peer: str, guest: Guest) -> None:
        """Remove a connection whose request has arrived, or that is gone."""
        own = self._peers.get(peer, {})
        if guest in own:
            del own[guest]
            self._count -= 1
            if not own:
                del self._peers[peer]

    def _most_crowded(self) -> str:
        return max(self._peers, key=lambda peer: len(self._peers[peer]))

    def _make_room(self, peer: str) -> None:
        guest = next(iter(self._peers[peer]))
        self.leave(peer, guest)
        guest.end_wait()
