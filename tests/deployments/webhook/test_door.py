"""Who is let in at the receiver's door, in which order, and how many may wait before it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from deployments.webhook.receive.door import Door, listen
from deployments.webhook.receive.limits import Lobby

HEAD = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
SENDERS = b"POST /the-secret HTTP/1.1\r\nHost: a\r\n\r\n{}"
HALF = HEAD[:-2]


class House:
    """A door on loopback, those that came, and what those had said who were let in."""

    def __init__(self, stack: ExitStack, per_peer: int = 1000) -> None:
        self._stack = stack
        self.listening = stack.enter_context(listen("127.0.0.1", 0)[0])
        self.inside: list[bytes] = []
        self.lobby = Lobby(in_all=per_peer, per_peer=per_peer)
        self._door = Door(self.lobby, 60, lambda head: b"the-secret" in head, self._let_in)

    def open(self) -> None:
        """Accept from now on."""
        self._door.open([self.listening])
        self._stack.callback(self._door.close)

    def come(self, said: bytes) -> socket.socket:
        """Connect and say something; the system has it when this returns."""
        connection = self._stack.enter_context(socket.create_connection(self.listening.getsockname(), timeout=60))
        connection.sendall(said)
        return connection

    def _let_in(self, connection: socket.socket, peer: str, first: bytes) -> None:
        assert peer == "127.0.0.1"
        self._stack.callback(connection.close)
        self.inside.append(first)


async def until(is_so: Callable[[], bool]) -> int:
    """Let the loop turn until something is so; return how many turns that took."""
    async with asyncio.timeout(60):
        turns = 0
        while not is_so():
            await asyncio.sleep(0)
            turns += 1
    return turns


def test_who_shows_the_secret_is_let_in_before_strangers_who_came_first() -> None:
    async def scene() -> None:
        with ExitStack() as stack:
            house = House(stack)
            for _ in range(50):
                house.come(HEAD)
            house.come(SENDERS)
            house.open()
            await until(lambda: len(house.inside) == 51)
            assert house.inside[0] == SENDERS

    asyncio.run(scene())


def test_a_flood_is_taken_in_parts_so_that_who_is_inside_is_served_meanwhile() -> None:
    async def scene() -> None:
        with ExitStack() as stack:
            house = House(stack)
            for _ in range(400):
                house.come(SENDERS)
            house.open()
            before, most = 0, 0
            while before < 400:
                await until(lambda known=before: len(house.inside) > known)
                before, most = len(house.inside), max(most, len(house.inside) - before)
            assert most <= 64, "this many were let in within one turn of the loop"

    asyncio.run(scene())


def test_however_many_come_no_more_than_may_are_waited_for_and_the_newest_stay() -> None:
    async def scene() -> None:
        with ExitStack() as stack:
            house = House(stack, per_peer=5)
            house.open()
            came = []
            for number in range(100):
                came.append(house.come(HALF))
                await until(lambda known=number: len(house.lobby) == min(5, known + 1))
                # Nothing of it is left at the end of this turn but what is in the lobby.
                await asyncio.sleep(0)
                assert len(house.lobby) <= 5
            refused = came[0]
            refused.settimeout(60)
            with pytest.raises(ConnectionError):
                await asyncio.to_thread(partial(refused.recv, 1))
            came[-1].sendall(b"\r\n")
            await until(lambda: bool(house.inside))
            assert house.inside == [HEAD]

    asyncio.run(scene())


def test_a_head_that_comes_in_pieces_is_handed_over_whole() -> None:
    async def scene() -> None:
        with ExitStack() as stack:
            house = House(stack)
            house.open()
            sender = house.come(SENDERS[:1])
            for place in range(1, len(SENDERS) - 2):
                sender.sendall(SENDERS[place : place + 1])
                await asyncio.sleep(0)
            await until(lambda: bool(house.inside))
            assert SENDERS.startswith(house.inside[0]) and house.inside[0].endswith(b"\r\n\r\n")
            assert len(house.lobby) == 0

    asyncio.run(scene())


def test_the_last_look_at_who_makes_room_lets_a_sender_in() -> None:
    async def scene() -> None:
        with ExitStack() as stack:
            house = House(stack, per_peer=1)
            house.open()
            sender = house.come(SENDERS[:20])
            await until(lambda: len(house.lobby) == 1)
            # Both have come when the loop turns again; the stranger's connection is seen first or last.
            house.come(HALF)
            sender.sendall(SENDERS[20:])
            await until(lambda: bool(house.inside))
            assert house.inside == [SENDERS]

    asyncio.run(scene())


def test_who_goes_before_saying_anything_leaves_nothing_behind() -> None:
    async def scene() -> None:
        with ExitStack() as stack:
            house = House(stack)
            for _ in range(20):
                house.come(HALF).close()
                house.come(b"").close()
            house.open()
            house.come(SENDERS)
            await until(lambda: bool(house.inside) and len(house.lobby) == 0)

    asyncio.run(scene())


def test_a_host_that_is_in_use_is_an_error_and_not_half_a_door() -> None:
    with listen("127.0.0.1", 0)[0] as taken, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", taken.getsockname()[1])
