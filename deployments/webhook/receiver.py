"""A whole receiver on one machine: the app, its spool, and the dispatcher of the spool."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from starlette.applications import Starlette

from deployments.webhook.inbox.inbox import SpoolInbox
from deployments.webhook.inbox.metrics import Metrics
from deployments.webhook.inbox.spool import Spool
from deployments.webhook.receive.app import create_app, desk_of
from deployments.webhook.receive.keys import Keys, keys_of
from deployments.webhook.receive.settings import PREVIOUS_SECRET_BLOCK, SECRET_BLOCK, WebhookSettings
from deployments.webhook.start.airbyte_jobs import find_jobs
from deployments.webhook.start.alerts import SyncAlerts
from deployments.webhook.start.dispatcher import Dispatcher
from deployments.webhook.start.prefect_api import PrefectAddress, PrefectApi
from deployments.webhook.start.starter import Starter
from flows.services.airbyte.sync_events import connections_of
from infrastructure.errors import TributaryError

logger = logging.getLogger(__name__)

# How often to look for changed secrets, changed sources and a newly set up Airbyte.
_REFRESH_SECONDS = 60.0
_DIGESTS = "digests of the secrets"
_DAY_SECONDS = 86_400.0


class Receiver:
    """The parts of a receiver, kept up to date."""

    def __init__(self, settings: WebhookSettings, address: PrefectAddress) -> None:
        """Open the spool and read the project.

        Raises:
            ConfigError: the spool or the project can't be used, or a secret is too short.
        """
        self._settings = settings
        self._spool = Spool(settings.spool)
        self._prefect = PrefectApi(address, settings.deployment)
        metrics = Metrics()
        inbox = SpoolInbox(self._spool, lambda: self._dispatcher.wake(), settings.window_seconds)
        self._project_changed_at = _changed_at(settings.project_dir)
        self.desk = desk_of(settings, inbox, metrics)
        if not self.desk.keys:
            self.desk.keys = Keys(json.loads(self._spool.kept(_DIGESTS) or "[]"))
        self._dispatcher = Dispatcher(
            self._spool,
            Starter(self._prefect, lambda: self.desk.connections, settings.target),
            metrics,
            SyncAlerts(lambda: self.desk.connections, settings.target),
            as_union=settings.window_seconds > 0,
            longest_pause_seconds=settings.prefect_retry_seconds,
        )

    def app(self) -> Starlette:
        """Return the app, which processes the spool while it is served."""
        return create_app(self.desk, self._lifespan)

    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        # Before the first delivery is answered, if Prefect answers; else later.
        await self._refresh()
        tasks = [asyncio.create_task(self._dispatcher.run()), asyncio.create_task(self._keep_fresh())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            await self._prefect.close()
            self._spool.close()

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            try:
                await asyncio.to_thread(self._read_project)
                await asyncio.to_thread(self._spool.prune, time.time() - self._settings.keep_days * _DAY_SECONDS)
            except (TributaryError, OSError, sqlite3.Error) as exc:
                logger.error("The receiver could not be updated: %s", exc)
            await self._refresh()

    def _read_project(self) -> None:
        """Read the project's sources again where its files have changed."""
        changed_at = _changed_at(self._settings.project_dir)
        if changed_at != self._project_changed_at:
            self.desk.connections = connections_of(self._settings.project_dir, os.environ)
            self._project_changed_at = changed_at

    async def _refresh(self) -> None:
        """Read secrets and Airbyte's blocks from the Prefect server; without an answer, the last values stay."""
        try:
            self._dispatcher.airbyte = await find_jobs(self._prefect)
            if not self._settings.secret:
                await self._read_secrets()
        except TributaryError as exc:
            logger.error("%s", exc)
        if not self.desk.keys:
            logger.error(
                "No delivery is accepted: set TRIBUTARY_WEBHOOK_SECRET, or save the Secret block %s.", SECRET_BLOCK
            )

    async def _read_secrets(self) -> None:
        keys = keys_of([await self._prefect.read_secret(name) for name in (SECRET_BLOCK, PREVIOUS_SECRET_BLOCK)])
        if keys.digests != self.desk.keys.digests:
            self.desk.keys = keys
            # A receiver that starts while Prefect does not answer checks senders with these.
            await asyncio.to_thread(self._spool.keep, _DIGESTS, json.dumps(keys.digests))


def _changed_at(project: Path) -> int:
    """Return when a project's files last changed, in nanoseconds, which is much cheaper than reading them."""
    return max((path.stat().st_mtime_ns for path in project.rglob("*.y*ml") if path.is_file()), default=0)
