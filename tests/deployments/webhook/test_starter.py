"""Starting runs on a real Prefect server: one for each sync, whoever asks and however often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

import pytest

from deployments.webhook.start import starter
from deployments.webhook.start.prefect_api import Hold, PrefectAddress, PrefectApi, prefect_address
from deployments.webhook.start.starter import Result, Started, Starter
from flows.services.airbyte.sync_events import START_LIMIT, START_SIGN, AirbyteSync
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.server.slots import Terms
from tests.support.prefect_api import look, post
from tests.support.processes import wait_until
from tests.support.webhook.deliveries import FACEBOOK_ADS, GOOGLE_ADS, STRANGER
from tests.support.webhook.receiver import Deployment

CONNECTIONS = {GOOGLE_ADS: ["google_ads"], FACEBOOK_ADS: ["facebook_ads"]}
A, B, C = AirbyteSync(GOOGLE_ADS, 1), AirbyteSync(FACEBOOK_ADS, 2), AirbyteSync(GOOGLE_ADS, 3)


def start(api: str, deployment: str, *calls: Sequence[Sequence[AirbyteSync]]) -> list[list[Result]]:
    async def start() -> list[list[Result]]:
        prefect = PrefectApi(PrefectAddress(api), deployment)
        try:
            starter = Starter(prefect, lambda: CONNECTIONS, "prod")
            return [await asked_again(starter, unions) for unions in calls]
        finally:
            await prefect.close()

    async def asked_again(starter: Starter, unions: Sequence[Sequence[AirbyteSync]]) -> list[Result]:
        """Ask as the dispatcher does: again, while the server's database is locked for a moment."""
        deadline = time.monotonic() + 180
        while True:
            try:
                results = await starter.start(unions)
                failed = [result for result in results if isinstance(result, UpstreamUnavailable)]
            except UpstreamUnavailable as exc:
                results, failed = [], [exc]
            if not any("503" in str(error) for error in failed) or time.monotonic() > deadline:
                if failed and not results:
                    raise failed[0]
                return results
            await asyncio.sleep(0.1)

    return asyncio.run(start())


def test_a_sync_is_one_run_and_a_union_leaves_out_what_has_run(deployment: Deployment) -> None:
    first, again, union, nothing = start(deployment.api, deployment.name, [[A]], [[A], [A]], [[A, B, C]], [[B, C]])
    assert isinstance(first[0], Started)
    assert again == [Started(first[0].flow_run_id, is_new=False)] * 2
    assert isinstance(union[0], Started)
    assert union[0].is_new
    assert nothing == [Started(union[0].flow_run_id, is_new=False)]
    assert deployment.jobs() == [["1"], ["2", "3"]]
    parameters = {run["id"]: run["parameters"] for run in deployment.runs()}
    assert parameters[first[0].flow_run_id] == {"source": ["google_ads"], "jobs": {GOOGLE_ADS: 1}, "target": "prod"}
    assert parameters[union[0].flow_run_id]["source"] == ["facebook_ads", "google_ads"]


def test_a_connection_that_loads_nothing_any_more_starts_nothing(deployment: Deployment) -> None:
    assert start(deployment.api, deployment.name, [[AirbyteSync(STRANGER, 1)]]) == [[None]]
    assert deployment.runs() == []


def take_limit(api: str) -> None:
    """Hold the limit and show no sign of life, as a starter that is dead for a server that forgot its lease."""
    body = {"names": [START_LIMIT], "slots": 1, "mode": "concurrency", "lease_duration": 60}
    post(api, "/v2/concurrency_limits/increment-with-lease", body)


def test_a_limit_that_nobody_gives_back_does_not_keep_syncs_waiting(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Prefect server that is killed forgets the leases, and keeps the slots."""
    monkeypatch.setattr(starter, "START_TERMS", Terms(lease=0.3, renew=10.0, proven=25.0))
    start(deployment.api, deployment.name, [])
    take_limit(deployment.api)
    start(deployment.api, deployment.name, [[A]])
    limit = look(f"{deployment.api}/v2/concurrency_limits/{START_LIMIT}")
    assert limit["active_slots"] == 0, "it is freed for all"
    assert deployment.jobs() == [["1"]]


async def _taken(stack: AsyncExitStack, prefect: PrefectApi) -> Hold:
    """Hold the lock for starting runs: a server whose database is locked for a moment is asked again."""
    for _ in range(20):
        with suppress(UpstreamUnavailable):
            terms = Terms(lease=60.0, renew=0.05, proven=25.0)
            return await stack.enter_async_context(prefect.holding(START_LIMIT, START_SIGN, terms))
    pytest.fail("the Prefect server does not give the lock")


def test_a_starter_is_heard_of_for_as_long_as_it_starts(deployment: Deployment) -> None:
    """Else another would take it for dead: on a slow server, twenty starts take longer than a lease."""
    start(deployment.api, deployment.name, [])

    def signs() -> int:
        variable = look(f"{deployment.api}/variables/name/{START_SIGN}")
        return variable["value"]["signs_of_life"] if variable else 0

    async def hold() -> None:
        prefect = PrefectApi(PrefectAddress(deployment.api), deployment.name)
        async with AsyncExitStack() as stack:
            hold = await _taken(stack, prefect)
            first = hold.proven_at
            await asyncio.to_thread(wait_until, lambda: signs() > 2, "it is heard of again")
            assert hold.proven_at > first
        await prefect.close()

    asyncio.run(hold())


def test_a_starter_that_is_not_renewed_in_time_starts_nothing(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter, "START_TERMS", Terms(lease=60.0, renew=10.0, proven=0.0))
    ((result,),) = start(deployment.api, deployment.name, [[A]])
    assert isinstance(result, UpstreamUnavailable)
    assert "has not renewed the lock for starting runs" in str(result)
    assert deployment.runs() == []


def test_what_prefect_refuses_and_what_passes_are_told_apart(prefect_server: str) -> None:
    with pytest.raises(ConfigError, match="no deployment dbt-transformation-flow/nowhere"):
        start(prefect_server, "dbt-transformation-flow/nowhere", [[A]])
    with pytest.raises(UpstreamUnavailable, match="does not answer"):
        start("http://127.0.0.1:9/api", "dbt-transformation-flow/nowhere", [[A]])


def test_the_address_is_that_of_the_environment_and_its_credentials_are_not_shown() -> None:
    environ = {"PREFECT_API_URL": "http://prefect/api/", "PREFECT_API_KEY": "pnu_key"}
    address = prefect_address(environ)
    assert (address.url, address.key) == ("http://prefect/api", "pnu_key")
    assert "pnu_key" not in repr(address)


def test_without_a_server_it_says_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults=[PREFECT_API_URL]), pytest.raises(ConfigError, match="PREFECT_API_URL"):
        prefect_address({})
