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
    """A connection whose request may have come without being read yet."""

    name: str
    gone: list[str]
    has_sent: bool = False

    def is_silent(self) -> bool:
        return not self.has_sent

    def hang_up(self) -> None:
        self.gone.append(self.name)


class Visitors:
    """Connections that enter a lobby, and the names of those that were hung up on."""

    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby
        self._known: dict[str, Visitor] = {}
        self.gone: list[str] = []

    def enter(self, *names: str, has_sent: bool = False) -> None:
        """Let connections named <peer>-<number> owe a request."""
        for name in names:
            visitor = self._known.setdefault(name, Visitor(name, self.gone, has_sent))
            self._lobby.enter(name.partition("-")[0], visitor)

    def leave(self, name: str) -> None:
        """Let one have sent its request."""
        self._lobby.leave(name.partition("-")[0], self._known[name])


def test_of_too_many_connections_the_one_that_has_owed_longest_goes() -> None:
    now = [0.0]
    visitors = Visitors(Lobby(in_all=5, per_peer=3, clock=lambda: now[0]))
    visitors.enter("a-1", "a-2", "a-3")
    now[0] += 1
    visitors.enter("a-1")  # It has asked, was answered, and owes the next request only since now.
    visitors.enter("a-4")
    assert visitors.gone == ["a-2"]
    visitors.leave("a-3")
    visitors.enter("a-5")
    assert visitors.gone == ["a-2"], "who has sent a request is not counted"
    now[0] += 1
    visitors.enter("b-1", "b-2", "c-1")
    assert visitors.gone == ["a-2", "a-1"], "for one too many in all, the peer with most of them pays"
    now[0] += 1
    visitors.enter(*(f"{peer}-1" for peer in "defgh"))
    assert len(visitors.gone) == 7, "also where every peer has one"


def test_who_has_just_connected_is_not_hung_up_on_before_it_could_be_read() -> None:
    now = [0.0]
    visitors = Visitors(Lobby(in_all=2, per_peer=2, clock=lambda: now[0]))
    visitors.enter("a-1", "a-2", "a-3", "a-4")
    assert visitors.gone == []
    now[0] += 1
    visitors.enter("a-5")
    assert visitors.gone == ["a-1", "a-2", "a-3"]
    visitors.leave("a-1")  # It is told that the connection is lost.
    visitors.enter("a-6")
    assert visitors.gone == ["a-1", "a-2", "a-3", "a-4"]


def test_whose_request_has_come_is_not_hung_up_on_however_slow_this_machine_is_to_read_it() -> None:
    now = [0.0]
    visitors = Visitors(Lobby(in_all=100, per_peer=2, clock=lambda: now[0]))
    visitors.enter("a-1", has_sent=True)
    visitors.enter("a-2")
    now[0] += 60
    visitors.enter("a-3")
    assert visitors.gone == ["a-2"]
    now[0] += 60
    visitors.enter("a-4", "a-5")
    assert visitors.gone == ["a-2", "a-3"]
    now[0] += 60
    visitors.enter("a-6")
    assert visitors.gone == ["a-2", "a-3", "a-4", "a-5"], "and when there is room again, everybody else goes first"
