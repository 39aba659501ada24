"""Start runs for finished syncs: one per sync or union of syncs, however often they are delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deployments.webhook.start.prefect_api import Hold, PrefectApi
from flows.services.airbyte.sync_events import (
    START_LIMIT,
    START_SIGN,
    AirbyteSync,
    idempotency_key,
    run_parameters,
    sources_of,
    syncs_of,
)
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.server.slots import START_TERMS

# How many runs are created at once. More would not be faster: a Prefect server on SQLite writes one by one.
_AT_ONCE = 2

Connections = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Started:
    """A run that covers some syncs.

    Attributes:
        is_new: whether it did not exist before.
    """

    flow_run_id: str
    is_new: bool


# None where no source is loaded by the connections any more.
Result = Started | ConfigError | UpstreamUnavailable | None


class Starter:
    """Start a deployment's runs."""

    def __init__(self, prefect: PrefectApi, connections: Callable[[], Connections], target: str) -> None:
        self._prefect = prefect
        self._connections = connections
        self._target = target
        self._has_limit = False

    async def start(self, unions: Sequence[Sequence[AirbyteSync]]) -> list[Result]:
        """Start one run of each union of syncs, without those that a run of the deployment covers already.

        Returns a result for each. A failed union can be started again: under the same key, it may exist already.

        Raises:
            UpstreamUnavailable: Prefect did not answer before anything was started.
            ConfigError: there is no such deployment, or the credentials are refused.
        """
        if not self._has_limit:
            await self._prefect.make_limit(START_LIMIT)
            self._has_limit = True
        async with self._prefect.holding(START_LIMIT, START_SIGN, START_TERMS) as hold:
            tags = [sync.tag for union in unions for sync in union]
            runs = {
                sync: flow_run_id
                for flow_run_id, found in await self._prefect.runs_with_tags(tags)
                for sync in syncs_of(found)
            }
            turns = asyncio.Semaphore(_AT_ONCE)

            async def one(union: Sequence[AirbyteSync]) -> Result:
                async with turns:
                    try:
                        return await self._start(union, runs, hold)
                    except (ConfigError, UpstreamUnavailable) as exc:
                        return exc

            return await asyncio.gather(*(one(union) for union in unions))

    async def _start(self, union: Sequence[AirbyteSync], runs: Mapping[AirbyteSync, str], hold: Hold) -> Started | None:
        left = [sync for sync in union if sync not in runs]
        if not left:
            return Started(runs[union[0]], is_new=False)
        connections = self._connections()
        if not sources_of(left, connections):
            return None
        hold.require()
        flow_run_id = await self._prefect.start(
            run_parameters(left, connections, self._target),
            sorted(sync.tag for sync in left),
            idempotency_key(left, self._prefect.deployment),
        )
        return Started(flow_run_id, is_new=True)
