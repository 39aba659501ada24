"""Store a delivery before the receiver answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from deployments.webhook.inbox.delivery import Delivery
from deployments.webhook.inbox.spool import Backlog, Spool, Stored

# Deliveries written in one transaction, so that they share one wait for the disk.
_BATCH = 500


class Inbox(Protocol):
    """Keep deliveries safe."""

    async def add(self, delivery: Delivery) -> Stored:
        """Store a delivery; when this returns, it is safe.

        Raises:
            Exception: it could not be stored; the sender has to try again.
        """
        ...

    def backlog(self) -> Backlog:
        """Return how much is left to do."""
        ...


class SpoolInbox:
    """Put deliveries into a spool; those that arrive together share a transaction."""

    def __init__(
        self,
        spool: Spool,
        stored: Callable[[], None],
        window_seconds: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self._stored = stored
        self._window_seconds = window_seconds
        self._clock = clock
        self._waiting: list[tuple[Delivery, asyncio.Future[Stored]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def add(self, delivery: Delivery) -> Stored:
        """Store a delivery; when this returns, it is on the disk."""
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        # The request may be cancelled; the delivery is written all the same.
        return await asyncio.shield(future)

    def backlog(self) -> Backlog:
        """Return how much is left to do."""
        return self._spool.backlog()

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            deliveries = [delivery for delivery, _ in batch]
            try:
                stored = await asyncio.to_thread(self._spool.add, deliveries, self._clock(), self._window_seconds)
            except Exception as exc:  # noqa: BLE001  (raised in the requests that wait for it)
                for _, future in batch:
                    if not future.done():
                        future.set_exception(exc)
                continue
            self._stored()
            for (_, future), outcome in zip(batch, stored, strict=True):
                if not future.done():
                    future.set_result(outcome)
