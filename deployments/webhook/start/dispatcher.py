"""Process stored deliveries: confirm, alert, start runs, and try again until it is done."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from deployments.webhook.inbox.metrics import Metrics
from deployments.webhook.inbox.spool import NOT_ENDED, Spool, SpooledDelivery
from deployments.webhook.start.alerts import SyncAlerts
from deployments.webhook.start.starter import Started, Starter
from deployments.webhook.start.verdict import AirbyteJobs, judge
from flows.services.airbyte.sync_events import AirbyteSync
from infrastructure.errors import ConfigError, UpstreamUnavailable

logger = logging.getLogger(__name__)

# How many runs are started under one hold of the limit that keeps starters apart, which lasts a minute.
_CHUNK = 20
_FIRST_PAUSE_SECONDS = 0.5
# How often to look for events of other processes in the spool.
_IDLE_SECONDS = 5.0
# What Prefect refuses needs a person; it is tried again in case the cause is fixed.
_REFUSED_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 15.0
# How long an alert about a failure waits if Airbyte can't confirm it.
DOUBT_SECONDS = 600.0


class Dispatcher:
    """Process a spool, for as long as it runs."""

    def __init__(
        self,
        spool: Spool,
        starter: Starter,
        metrics: Metrics,
        alerts: SyncAlerts,
        as_union: bool = False,
        longest_pause_seconds: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self._starter = starter
        self._metrics = metrics
        self._alerts = alerts
        # Confirms failures; may be set later.
        self.airbyte: AirbyteJobs | None = None
        self._as_union = as_union
        self._longest_pause_seconds = longest_pause_seconds
        self._clock = clock
        self._woken = asyncio.Event()
        self._pause_seconds = 0.0
        self._paused_until = 0.0

    def wake(self) -> None:
        """Signal that the spool has new events."""
        self._woken.set()

    async def run(self) -> None:
        """Process events until cancelled."""
        while True:
            self._woken.clear()
            try:
                await self.step()
                wait_seconds = await self._until_next()
            except Exception:  # One bug must not stop the processing of stored events.
                logger.exception("The dispatcher failed, and continues")
                wait_seconds = _IDLE_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), wait_seconds)

    async def step(self) -> None:
        """Process the events that are due."""
        now = self._clock()
        if now < self._paused_until:
            # New deliveries must not cause more requests to a failing server.
            await asyncio.sleep(min(self._paused_until - now, self._longest_pause_seconds))
            now = self._clock()
        await asyncio.gather(*(self._confirm(event) for event in await _in_thread(self._spool.to_confirm, now)))
        batches = await _in_thread(self._spool.take, self._clock(), self._as_union)
        for first in range(0, len(batches), _CHUNK):
            if not await self._start(batches[first : first + _CHUNK]):
                return

    async def _start(self, batches: Sequence[Sequence[SpooledDelivery]]) -> bool:
        """Start a run of each batch; return whether Prefect answered."""
        try:
            results = await self._starter.start([[_sync(event) for event in batch] for batch in batches])
        except UpstreamUnavailable as exc:
            self._pause(exc)
            return False
        except ConfigError as exc:
            results = [exc] * len(batches)
        unavailable: UpstreamUnavailable | None = None
        for batch, result in zip(batches, results, strict=True):
            if isinstance(result, UpstreamUnavailable):
                unavailable = result
            else:
                await self._write_down(batch, result)
        if unavailable:
            self._pause(unavailable)
            return False
        self._is_up()
        return True

    async def _write_down(self, batch: Sequence[SpooledDelivery], result: Started | ConfigError | None) -> None:
        now = self._clock()
        connections = sorted({event.delivery.connection_id for event in batch})
        if isinstance(result, ConfigError):
            self._metrics.failures.labels("refused").inc()
            logger.error(
                "No run could be started for %s; next attempt in %.0f s: %s",
                ", ".join(connections),
                _REFUSED_SECONDS,
                result,
            )
            await _in_thread(self._spool.postpone, batch, now + _REFUSED_SECONDS)
            return
        if result is None:
            logger.warning("No source of the project is loaded by %s any more", ", ".join(connections))
            await self._finish(batch, "no source")
            return
        recovered = [name for name in connections if await _in_thread(self._spool.had_failed, name)]
        await self._finish(batch, "started" if result.is_new else "started before", result.flow_run_id)
        if result.is_new:
            self._metrics.runs.inc()
            for event in batch:
                self._metrics.start_seconds.observe(max(0.0, now - event.received_at))
        logger.info(
            "Flow run %s %s for %s",
            result.flow_run_id,
            "is started" if result.is_new else "was there",
            ", ".join(_sync(event).tag for event in batch),
        )
        for connection in recovered:
            await _in_thread(self._alerts.close, connection)

    async def _confirm(self, event: SpooledDelivery) -> None:
        now = self._clock()
        is_last_try = now - event.received_at > DOUBT_SECONDS
        try:
            verdict = await _in_thread(judge, event.delivery, self.airbyte, event.received_at, is_last_try)
        except (UpstreamUnavailable, ConfigError) as exc:
            self._metrics.failures.labels("airbyte").inc()
            logger.warning("Airbyte can't confirm %s: %s", event.delivery.connection_id, exc)
            await _in_thread(self._spool.postpone, [event], now + _ASK_AGAIN_SECONDS)
            return
        said = verdict.delivery
        match verdict.action:
            case "start":
                await _in_thread(self._spool.resolve, event, said, "resolved", now)
            case "alert":
                logger.warning("The sync %s of connection %s failed: %s", said.job_id, said.connection_id, said.reason)
                # The alert first, then the outcome: two alerts are better than none.
                await _in_thread(self._alerts.open, event.delivery, said.reason)
                await self._finish([event], "alerted")
            case "not ended":
                logger.info("The sync %s of connection %s has not ended", said.job_id, said.connection_id)
                await self._finish([event], NOT_ENDED)
            case "pass over":
                logger.info("Airbyte has no sync %s of connection %s", said.job_id, said.connection_id)
                await self._finish([event], "unknown job")

    async def _finish(self, events: Sequence[SpooledDelivery], outcome: str, flow_run_id: str | None = None) -> None:
        await _in_thread(self._spool.finish, events, outcome, self._clock(), flow_run_id)
        self._metrics.ended.labels(outcome).inc(len(events))

    # Not tenacity, which repeats one call: between two attempts, other events become due and new ones arrive.
    def _pause(self, error: UpstreamUnavailable) -> None:
        self._metrics.failures.labels("prefect").inc()
        self._metrics.prefect_up.set(0)
        if self._pause_seconds == 0.0:
            logger.error("%s Deliveries are kept, and their runs start when it answers.", error)
        doubled = max(_FIRST_PAUSE_SECONDS, self._pause_seconds * 2)
        self._pause_seconds = min(doubled, self._longest_pause_seconds)
        self._paused_until = self._clock() + self._pause_seconds * random.uniform(0.75, 1.0)  # noqa: S311

    def _is_up(self) -> None:
        self._metrics.prefect_up.set(1)
        if self._pause_seconds:
            logger.info("Prefect answers again")
        self._pause_seconds = self._paused_until = 0.0

    async def _until_next(self) -> float:
        next_due_at = (await _in_thread(self._spool.backlog)).next_due_at
        if next_due_at is None:
            return _IDLE_SECONDS
        return max(0.0, min(max(next_due_at, self._paused_until) - self._clock(), _IDLE_SECONDS))


def _sync(event: SpooledDelivery) -> AirbyteSync:
    # Only events with a job id wait for a run.
    return AirbyteSync(event.delivery.connection_id, event.delivery.job_id or 0)


_in_thread = asyncio.to_thread
