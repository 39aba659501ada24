"""How much is taken from whom: wrong secrets by a token bucket per peer, connections by who has owed a request longest.

Nothing here ever counts against who shows the right secret: behind a proxy every sender has one address.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import islice
from typing import Generic, Protocol, TypeVar

# Peers that are remembered; who was quiet longest is forgotten first, and starts anew with a full bucket.
_MAX_PEERS = 10_000
# The request of who has just connected may be on its way.
_GRACE_SECONDS = 1.0
# How many are looked at for one that can be hung up on; more would make room dear while everybody sends.
_TRIES = 8
# What one customer of a provider gets: a peer that counts as many if every address in it is one.
_IPV6_PREFIX = 64

Made = TypeVar("Made")


def peer_of(host: str | None) -> str:
    """Return whom an address is counted for: itself, the network of an IPv6 one, or one peer for all that have none."""
    try:
        address = ip_address(host or "")
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((int(address), _IPV6_PREFIX), strict=False))
    return str(address)


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


class Seldom(Generic[Made]):
    """Make something anew a few times a second, and give the last one to whoever asks more often."""

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
        """Return it; what making it raises is raised."""
        if not self._last or not self._rate.retry_after("anybody"):
            self._last = [await self._make()]
        return self._last[0]


class Guest(Protocol):
    """A connection that owes a request."""

    def is_silent(self) -> bool:
        """Return whether nothing has come from it that is not read yet."""
        ...

    def hang_up(self) -> None:
        """Close the connection."""
        ...


class Lobby:
    """Hold the connections that owe a request, and bound them: in all, and of each peer.

    A connection owes a request until the head of one is there, and again from its answer on. Nobody is kept out: for
    one too many, that one is hung up on which has owed longest. So whoever connects and asks is always answered.
    """

    def __init__(self, in_all: int, per_peer: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._in_all = in_all
        self._per_peer = per_peer
        self._clock = clock
        # Peer → its connections and since when each has owed; longest first.
        self._peers: dict[str, dict[Guest, float]] = {}
        self._count = 0

    def enter(self, peer: str, guest: Guest) -> None:
        """Take in a connection that owes a request from now on."""
        self.leave(peer, guest)
        now = self._clock()
        own = self._peers.setdefault(peer, {})
        own[guest] = now
        self._count += 1
        while len(own) > self._per_peer and self._make_room(peer, now):
            pass
        while self._count > self._in_all and self._make_room(self._most_crowded(), now):
            pass

    def leave(self, peer: str, guest: Guest) -> None:
        """Let go of a connection that owes nothing any more, or is gone."""
        own = self._peers.get(peer, {})
        if own.pop(guest, None) is not None:
            self._count -= 1
            if not own:
                del self._peers[peer]

    def _most_crowded(self) -> str:
        return max(self._peers, key=lambda peer: len(self._peers[peer]))

    def _make_room(self, peer: str, now: float) -> bool:
        """Hang up on the one that has owed longest; return False where none of the first few has owed for long."""
        own = self._peers[peer]
        for guest, since in list(islice(own.items(), _TRIES)):
            if now - since < _GRACE_SECONDS:
                return False
            if guest.is_silent():
                self.leave(peer, guest)
                guest.hang_up()
                return True
            # Under load it may have sent its request long ago, and is read within this turn of the loop or the next.
            del own[guest]
            own[guest] = now
        return False
