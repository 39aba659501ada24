"""Deliveries as Airbyte makes them, and what each was answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

SECRET = "the-secret-of-this-benchmark-0123456789"
CONNECTIONS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(1, 9)]
AT_ONCE = 32
_SENDER_WAITS_SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    """What one delivery was answered, or why it was not."""

    outcome: str
    seconds: float


async def send(port: int, bodies: Sequence[bytes]) -> list[Answer]:
    """Send deliveries over a few connections that are kept, and again over a new one where one breaks; never twice."""
    waiting = list(reversed(bodies))
    answers: list[Answer] = []

    async def sender() -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while waiting:
            body = waiting.pop()
            started = time.perf_counter()
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", port)
                outcome = await _ask(*streams, body)
            except (OSError, asyncio.IncompleteReadError) as exc:
                streams, outcome = None, type(exc).__name__
            answers.append(Answer(outcome, time.perf_counter() - started))
        if streams:
            streams[1].close()

    await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    return answers


async def send_once(port: int, body: bytes) -> Answer:
    """Deliver as Airbyte does: once, over a connection of its own, without a second try."""
    started = time.perf_counter()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_SENDER_WAITS_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            outcome = await _ask(reader, writer, body)
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as exc:
        outcome = type(exc).__name__
    finally:
        if writer:
            writer.close()
    return Answer(outcome, time.perf_counter() - started)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> str:
    head = (
        f"POST /webhooks/airbyte HTTP/1.1\r\nHost: bench\r\nX-API-Key: {SECRET}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    lines = answer.decode().lower().split("\r\n")
    length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
    await reader.readexactly(length)
    return lines[0].split()[1]


def body_of(connection_id: str, job: int) -> bytes:
    """Return a delivery of about the size that Airbyte's have."""
    data = {
        "connection": {"id": connection_id, "name": "Ads → warehouse", "url": "https://airbyte/connection"},
        "jobId": job,
        "success": True,
        "startedAt": "2026-11-01T00:00:00Z",
        "finishedAt": "2026-11-01T00:04:00Z",
        "recordsCommitted": 89,
    }
    return json.dumps({"text": "x" * 500, "blocks": [{"text": {"text": "x" * 1500}}], "data": data}).encode()
