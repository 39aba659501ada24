"""A proxy that does not run is said, whoever is asked through it, and what signs in at it never is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.webhook.start.prefect_api import PrefectAddress, PrefectApi
from flows.alerts.send.delivery import SendDeadline, post
from flows.services.airbyte.client import AirbyteClient, SyncPatience
from flows.services.dbt_cloud.client import CloudClient
from flows.services.dbt_cloud.settings import CloudSettings
from infrastructure.server.client import connect
from infrastructure.workspace import ROOT
from tests.support.proxies import no_proxy_but

# Of the host's name nobody is asked: the proxy is.
HOST = "tributary.invalid"
URL = f"http://{HOST}"


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    """Have everything go through a proxy that is not there, and return its address."""
    no_proxy_but({"ALL_PROXY": "http://a-user:a-password@127.0.0.1:9"}, monkeypatch)
    return "http://127.0.0.1:9"


def server() -> None:
    with temporary_settings({PREFECT_API_URL: f"{URL}/api"}), connect() as found:
        found.read_limit("dbt-dev")


def alert() -> None:
    post(f"{URL}/services/a-password", {}, SendDeadline.after(5), lambda _: None)


def airbyte() -> None:
    with AirbyteClient(f"{URL}/api/public/v1", patience=SyncPatience(sleep=lambda _: None)) as client:
        client.job(1)


def dbt_cloud() -> None:
    async def ask() -> None:
        async with CloudClient(CloudSettings(1, "a-token", URL, attempts=1, backoff_seconds=0.0)) as client:
            await client.jobs()

    asyncio.run(ask())


def receiver() -> None:
    async def ask() -> None:
        prefect = PrefectApi(PrefectAddress(f"{URL}/api"), "a-flow/a-deployment")
        try:
            await prefect.deployment_id()
        finally:
            await prefect.close()

    asyncio.run(ask())


@pytest.mark.parametrize("ask", [server, alert, airbyte, dbt_cloud, receiver])
def test_a_proxy_that_does_not_run_is_said(ask: Callable[[], None], dead_proxy: str) -> None:
    with pytest.raises(Exception, match="ALL_PROXY") as caught:
        ask()
    said = str(caught.value)
    assert not isinstance(caught.value, httpx.HTTPError)
    assert f"ALL_PROXY sends this through the proxy {dead_proxy}: look whether that runs" in said
    assert f"NO_PROXY={HOST}" in said
    assert "a-password" not in said
    assert "a-user" not in said


def test_the_command_line_says_it_of_a_server_on_this_machine(tmp_path: Path) -> None:
    environ = {
        **{"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TRIBUTARY_STATE": str(tmp_path / "state")},
        **{"PREFECT_API_URL": "http://127.0.0.1:4200/api", "HTTP_PROXY": "http://a-user:a-password@127.0.0.1:9"},
        # Prefect would ask for a minute.
        "PREFECT_CLIENT_MAX_RETRIES": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "flows", "run"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 75, done.stderr
    assert "HTTP_PROXY sends this through the proxy http://127.0.0.1:9: look whether that runs" in done.stderr
    assert "NO_PROXY=127.0.0.1." in done.stderr
    assert "a-password" not in done.stderr + done.stdout
