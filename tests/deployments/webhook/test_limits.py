"""How much is taken from whom."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from deployments.webhook.receive.limits import Lobby, RateLimit, Seldom, peer_of


def test_a_burst_is_taken_and_then_what_the_rate_allows() -> None:
    now = [0.0]
    limit = RateLimit(per_second=2, burst=3, clock=lambda: now[0])
    assert [limit.retry_after("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.retry_after("b") == 0, "one peer does not use up another's"
    now[0] += 0.5
    assert limit.retry_after("a") == 0
    assert limit.retry_after("a") > 0
    now[0] += 3600
    assert [limit.retry_after("a") for _ in range(4)] == [0, 0, 0, 0.5], "no more than a burst is saved up"


def test_peers_without_number_do_not_fill_the_memory() -> None:
    limit = RateLimit(per_second=1, burst=1, clock=lambda: 0.0)
    for number in range(10_500):
        limit.retry_after(f"peer {number}")
    assert limit.retry_after("peer 10499") > 0
    assert limit.retry_after("peer 0") == 0, "who was quiet longest is forgotten first"


def test_what_everybody_asks_for_is_made_anew_a_few_times_a_second() -> None:
    now, made = [0.0], [0]

    async def make() -> int:
        made[0] += 1
        return made[0]

    page = Seldom(make, per_second=2, burst=3, clock=lambda: now[0])
    assert [asyncio.run(page.get()) for _ in range(6)] == [1, 2, 3, 4, 4, 4], "who asks seldom gets a new one each time"
    now[0] += 0.5
    assert [asyncio.run(page.get()) for _ in range(3)] == [5, 5, 5]


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::1", "2001:db8:1:2::/64"),
        ("", "unknown"),
        (None, "unknown"),
        ("x" * 10_000, "unknown"),
    ],
)
def test_who_has_many_addresses_is_one_peer(host: str | None, peer: str) -> None:
    assert peer_of(host) == peer


@dataclass(eq=False)
class Visitor:
    """A connection that owes a request."""

    name: str
    gone: list[str]

    def end_wait(self) -> None:
        self.gone.append(self.name)


class Visitors:
    """Connections that enter a lobby, and the names of those whose wait was ended."""

    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby
        self._known: dict[str, Visitor] = {}
        self.gone: list[str] = []

    def enter(self, *names: str) -> None:
        """Let connections named <peer>-<number> owe a request."""
        for name in names:
            visitor = self._known.setdefault(name, Visitor(name, self.gone))
            self._lobby.enter(name.partition("-")[0], visitor)

    def leave(self, name: str) -> None:
        """Let one have sent its request."""
        self._lobby.leave(name.partition("-")[0], self._known[name])


def test_of_too_many_connections_the_one_that_has_owed_longest_goes() -> None:
    visitors = Visitors(Lobby(in_all=5, per_peer=3))
    visitors.enter("a-1", "a-2", "a-3")
    visitors.enter("a-1")  # It has asked, was answered, and owes the next request only since now.
    visitors.enter("a-4")
    assert visitors.gone == ["a-2"]
    visitors.leave("a-3")
    visitors.enter("a-5")
    assert visitors.gone == ["a-2"], "who has sent a request is not counted"
    visitors.enter("b-1", "b-2", "c-1")
    assert visitors.gone == ["a-2", "a-1"], "for one too many in all, the peer with most of them pays"
    visitors.enter(*(f"{peer}-1" for peer in "defgh"))
    assert len(visitors.gone) == 7, "also where every peer has one"


def test_never_do_more_connections_owe_a_request_than_may() -> None:
    lobby = Lobby(in_all=5, per_peer=3)
    visitors = Visitors(lobby)
    for number in range(1000):
        visitors.enter(f"{number % 7}-{number}")
        assert len(lobby) <= 5
    assert len(visitors.gone) == 995
