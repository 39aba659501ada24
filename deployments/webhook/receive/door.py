"""Accept connections: hand one to the server when the head of its request has arrived, senders before strangers.

asyncio's own servers accept a whole backlog of connections per turn of the loop, and create a transport, a task and a
timer for each before a byte has arrived. With a flood of connections, a turn then takes seconds (measured: 6,100 open
connections, an answer after 6 to 9 s). Here a connection without any data costs a socket.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Sequence

from deployments.webhook.receive.limits import Lobby, peer_of

logger = logging.getLogger(__name__)

LONGEST_HEAD_BYTES = 16_384
# The system's backlog between two turns of the loop. A client that finds it full tries again after one second, then
# three: longer than it takes to accept all of these.
_MAY_WAIT = 4096
# How many connections one turn of the loop accepts: answering a delivery takes a few turns.
_ACCEPTS_A_TURN = 64
_STRANGERS_A_TURN = 8
_PAUSE_SECONDS = 1.0
# Linux holds a connection back until its first byte has arrived, or for about so long.
_DEFER_SECONDS = 5
# Closed by a reset: the system keeps no state of it.
_AT_ONCE = struct.pack("ii", 1, 0)

LetIn = Callable[[socket.socket, str, bytes], None]


def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on every address of a host.

    Raises:
        OSError: the host is unknown, or the port is in use.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            listening = socket.create_server(address[:2], family=family, backlog=_MAY_WAIT)
            sockets.append(listening)
            listening.setblocking(False)
            if hasattr(socket, "TCP_DEFER_ACCEPT"):
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_SECONDS)
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets


class Door:
    """Accept connections a few at a time, and let in those whose first request head has arrived.

    A request with the secret is let in at once. Others are let in a few per turn of the loop, in the order of their
    arrival, and count in the lobby until then.
    """

    def __init__(self, lobby: Lobby, read_seconds: float, is_sender: Callable[[bytes], bool], let_in: LetIn) -> None:
        """Prepare the door.

        Args:
            read_seconds: time in which the first head has to arrive.
            is_sender: whether the head of a request has the secret.
            let_in: called with the connection, the peer it counts for, and the bytes read.
        """
        self.lobby = lobby
        self.read_seconds = read_seconds
        self._is_sender = is_sender
        self._let_in = let_in
        self._listening: list[socket.socket] = []
        self._visitors: set[Visitor] = set()
        # Those of them whose head has arrived, in the order of arrival.
        self._strangers: dict[Visitor, None] = {}

    def open(self, listening: Sequence[socket.socket]) -> None:
        """Accept from these sockets from now on."""
        self.loop = asyncio.get_running_loop()
        self._listening = list(listening)
        for each in self._listening:
            self.loop.add_reader(each, self._accept, each)

    def close(self) -> None:
        """Stop accepting, and close all connections that were not let in."""
        for each in self._listening:
            self.loop.remove_reader(each)
            each.close()
        self._listening.clear()
        for visitor in list(self._visitors):
            visitor.hang_up()

    async def wait_closed(self) -> None:
        """Return: nothing is left when it is closed."""

    def ask(self, visitor: Visitor) -> None:
        """Let in a visitor whose head has arrived: a sender now, a stranger in turn."""
        if self._is_sender(visitor.first):
            self._hand_over(visitor)
            return
        self._strangers[visitor] = None
        if len(self._strangers) == 1:
            self.loop.call_soon(self._let_strangers_in)

    def forget(self, visitor: Visitor) -> None:
        """Forget a visitor that was let in or is gone."""
        self._visitors.discard(visitor)
        self._strangers.pop(visitor, None)
        self.lobby.leave(visitor.peer, visitor)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                # Out of files or memory; without a pause, the loop would do nothing else.
                logger.error("Connections can't be accepted at the moment: %s", exc)
                self.loop.remove_reader(listening)
                self.loop.call_later(_PAUSE_SECONDS, self._accept_again, listening)
                return
            connection.setblocking(False)
            visitor = Visitor(self, connection, peer_of(address[0]))
            self._visitors.add(visitor)
            visitor.arrive()

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self.loop.add_reader(listening, self._accept, listening)

    def _let_strangers_in(self) -> None:
        for visitor in list(self._strangers)[:_STRANGERS_A_TURN]:
            self._hand_over(visitor)
        if self._strangers:
            self.loop.call_soon(self._let_strangers_in)

    def _hand_over(self, visitor: Visitor) -> None:
        self._let_in(visitor.leave(), visitor.peer, visitor.first)


class Visitor:
    """A connection that was not let in yet."""

    def __init__(self, door: Door, connection: socket.socket, peer: str) -> None:
        self.peer = peer
        self.first = b""
        self._door = door
        self._connection = connection
        self._is_here = True
        self._waits: asyncio.TimerHandle | None = None

    def arrive(self) -> None:
        """Read what has arrived, which is usually all, and wait for the rest."""
        is_owing = self._read()
        if not self._is_here:
            return
        self._waits = self._door.loop.call_later(self._door.read_seconds, self.hang_up)
        if is_owing:
            self._door.loop.add_reader(self._connection.fileno(), self._read_on)
        self._door.lobby.enter(self.peer, self)

    def end_wait(self) -> None:
        """Let it in if it has sent the secret meanwhile; otherwise close it."""
        self._read()
        if self._is_here:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.hang_up()

    def hang_up(self) -> None:
        """Close the connection."""
        if self._is_here:
            self.leave().close()

    def leave(self) -> socket.socket:
        """Return the connection, which the caller owns from now on."""
        self._is_here = False
        if self._waits:
            self._waits.cancel()
            self._door.loop.remove_reader(self._connection.fileno())
        self._door.forget(self)
        return self._connection

    def _read_on(self) -> None:
        if not self._read() and self._is_here:
            self._door.loop.remove_reader(self._connection.fileno())

    def _read(self) -> bool:
        """Read what has arrived; return whether the head is incomplete."""
        if _is_whole(self.first):
            return False
        try:
            part = self._connection.recv(LONGEST_HEAD_BYTES)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            part = b""
        if not part:
            self.hang_up()
            return False
        self.first += part
        if not _is_whole(self.first):
            return True
        self._door.ask(self)
        return False


def _is_whole(first: bytes) -> bool:
    """Return whether this is a complete head, or certainly not HTTP."""
    is_no_text = first[:1] < b"!" and first != b""
    return b"\n\r\n" in first or b"\n\n" in first or is_no_text or len(first) >= LONGEST_HEAD_BYTES
