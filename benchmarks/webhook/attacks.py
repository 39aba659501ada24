"""What an enemy without the secret does to a receiver, all at once.

`python -m benchmarks.webhook.attacks PORT SECONDS`, which `benchmarks.webhook --attacked` starts. All comes from one
address, the one that right deliveries come from too, as behind a TLS proxy. Prints JSON: how many
connections each kind of attack opened.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

_PATH = "/webhooks/airbyte"
_DRIP_SECONDS = 1.0
_HEALTH = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
_WRONG = f"POST {_PATH} HTTP/1.1\r\nHost: a\r\nX-API-Key: a-guess-of-the-secret\r\nContent-Length: %d\r\n\r\n"
# Reset when closed: otherwise the ports of this machine, which right deliveries need as well, are used up.
_NO_LINGER = struct.pack("ii", 1, 0)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a head a byte a second."""
    writer.write(f"POST {_PATH} HTTP/1.1\r\nHost: a\r\nX-Slow: ".encode())
    await _drip(reader, writer)


async def half_second_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a whole request, and half of the next one."""
    writer.write(_HEALTH + _HEALTH[:10])
    await _until_cut(reader)


async def slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a body a byte a second."""
    writer.write((_WRONG % 100_000).encode())
    await _drip(reader, writer)


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Connect, and say nothing."""
    await _until_cut(reader)


async def wrong_secrets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Guess as fast as guesses are answered."""
    while True:
        writer.write((_WRONG % 2).encode() + b"{}")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))


async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what is no HTTP."""
    writer.write(bytes(range(256)) * 8)
    await _until_cut(reader)


async def comings_and_goings(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Connect, and go."""


async def unread_pages(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask for pages, and read no answer."""
    while True:
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRIP_SECONDS):
                await writer.drain()


async def large_bodies(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a gigabyte as fast as it goes."""
    writer.write((_WRONG % 2**30).encode())
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


# How many connections of each kind there are at any time.
ATTACKS: dict[Attack, int] = {
    slow_head: 300,
    half_second_request: 600,
    slow_body: 300,
    silence: 300,
    wrong_secrets: 16,
    rubbish: 8,
    comings_and_goings: 8,
    unread_pages: 8,
    large_bodies: 2,
}


async def attack(port: int, seconds: float) -> Counter[str]:
    """Do all of it for a while, anew whenever it is cut; return how many connections each attack has opened."""
    opened: Counter[str] = Counter()
    attackers = [
        asyncio.create_task(_again_and_again(kind, port, opened))
        for kind, count in ATTACKS.items()
        for _ in range(count)
    ]
    await asyncio.sleep(seconds)
    for attacker in attackers:
        attacker.cancel()
    await asyncio.gather(*attackers, return_exceptions=True)
    return opened


async def _again_and_again(kind: Attack, port: int, opened: Counter[str]) -> None:
    while True:
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            opened[kind.__name__] += 1
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            await kind(reader, writer)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            # Refused or cut. An enemy has patience, but this machine's other processes are to get a turn.
            await asyncio.sleep(0.01)
        finally:
            if writer:
                writer.transport.abort()


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRIP_SECONDS):
                return await _until_cut(reader)


async def _until_cut(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


if __name__ == "__main__":
    print(json.dumps(asyncio.run(attack(int(sys.argv[1]), float(sys.argv[2])))))
