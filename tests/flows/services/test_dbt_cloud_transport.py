"""Requests to dbt Cloud: over HTTP/2 where it is offered, under the limit, and repeated only where that is safe."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from flows.services.dbt_cloud.client import CloudClient
from flows.services.dbt_cloud.settings import CloudSettings, settings_from
from flows.services.dbt_cloud.token_bucket import TokenBucket
from flows.services.dbt_cloud.transport import AnswerLost, RequestRefused
from infrastructure.errors import ConfigError, UpstreamUnavailable
from tests.support.cloud.jobs import job_body
from tests.support.cloud.server import (
    ACCOUNT,
    BROKEN,
    CLOSED,
    GATEWAY,
    LOST,
    LOST_BEFORE,
    TOKEN,
    Account,
    application,
    serving,
)

Answer = TypeVar("Answer")


@pytest.fixture
def account() -> Iterator[Account]:
    account = Account()
    with serving(account) as address:
        account.address = address  # type: ignore[attr-defined]
        yield account
    assert account.mistakes == []


def do(account: Account, work: Callable[[CloudClient], Awaitable[Answer]], **settings: Any) -> Answer:
    async def run() -> Answer:
        chosen = {"timeout_seconds": 0.5, "backoff_seconds": 0.01, "cooldown_seconds": 0.1, **settings}
        async with CloudClient(CloudSettings(ACCOUNT, TOKEN, account.address, 1e6, **chosen)) as client:  # type: ignore[attr-defined]
            return await work(client)

    return asyncio.run(run())


@pytest.mark.parametrize("kind", [LOST_BEFORE, BROKEN, CLOSED])
def test_a_read_is_repeated_until_it_is_answered(account: Account, kind: str) -> None:
    account.faults.planned = [("GET", "/jobs/", kind)] * 3
    assert do(account, lambda client: client.jobs()) == []
    assert account.requests["GET"] == 4


@pytest.mark.parametrize("kind", [LOST, LOST_BEFORE, BROKEN, GATEWAY])
def test_a_creation_whose_answer_is_lost_is_not_repeated(account: Account, kind: str) -> None:
    account.faults.planned = [("POST", "/jobs/", kind)]
    with pytest.raises(AnswerLost):
        do(account, lambda client: client.create_job(job_body("a")))
    assert account.requests["POST"] == 1


def test_a_creation_that_was_turned_away_by_the_limit_is_repeated(account: Account) -> None:
    account.faults.planned = [("POST", "/jobs/", CLOSED)]
    assert do(account, lambda client: client.create_job(job_body("a")))["name"] == "a"


def test_nothing_is_sent_while_the_account_is_closed(account: Account) -> None:
    """Each request in the five minutes after the first 429 would be turned away too."""
    account.faults.limit_per_minute, account.faults.cooldown_seconds = 5, 0.3

    async def work(client: CloudClient) -> None:
        for _ in range(12):
            await client.jobs()

    do(account, work, cooldown_seconds=0.35)
    # Twelve answers, and one 429 for every five of them.
    assert account.requests["GET"] <= 15


def test_what_dbt_cloud_says_against_a_request_is_passed_on(account: Account) -> None:
    body = job_body("a") | {
        "schedule": {"date": {"type": "custom_days"}, "time": {"type": "every_hour", "interval": 1}}
    }
    with pytest.raises(RequestRefused, match=r"400 The request was not valid.*schedule/date") as caught:
        do(account, lambda client: client.create_job(body))
    assert caught.value.status == 400
    account.mistakes.clear()
    with pytest.raises(UpstreamUnavailable, match=r"in 5 attempts: 500 Something went wrong\. Try again later"):
        account.faults.planned = [("GET", "/jobs/", BROKEN)] * 5
        do(account, lambda client: client.jobs())


def test_all_pages_are_read_and_a_list_that_shrinks_meanwhile_is_read_again(account: Account) -> None:
    for number in range(250):
        account.create(job_body(f"job {number}"))
    listed, calls = account.listed, []

    def shrinking(params: dict[str, Any]) -> bytes:
        calls.append(params)
        answer = listed(params)
        if len(calls) == 1:
            # The first job goes after the first page: the hundredth and first moves there unread.
            next(iter(account.jobs.values()))["state"] = 2
        return answer

    account.listed = shrinking  # type: ignore[method-assign]
    found = do(account, lambda client: client.jobs())
    assert len({job["id"] for job in found}) == 249
    assert len(calls) == 6


def test_a_bucket_gives_a_burst_and_then_its_rate_and_no_burst_after_a_pause() -> None:
    bucket, now = TokenBucket(per_second=10, burst=5), time.monotonic()
    waits = [bucket.reserve(now) for _ in range(10)]
    assert waits[:5] == [0.0] * 5
    assert waits[5:] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], abs=0.01)
    bucket = TokenBucket(per_second=10, burst=5)
    bucket.pause(300)
    waits = [bucket.reserve(time.monotonic()) for _ in range(3)]
    assert waits == pytest.approx([300.0, 300.1, 300.2], abs=0.05)


def test_wrong_settings_are_named_all_at_once_and_the_token_is_never_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from({"DBTCLOUD_HOST_URL": "http://cloud.example.org", "DBTCLOUD_REQUESTS_PER_MINUTE": "many"})
    assert all(name in str(caught.value) for name in ("ACCOUNT_ID", "TOKEN is not set", "unencrypted", "PER_MINUTE"))
    settings = settings_from({"DBT_API_KEY": "sesame", "DBT_ACCOUNT_ID": "5", "DBT_BASE_URL": "https://emea.dbt.com/"})
    assert settings.host == "https://emea.dbt.com"
    assert "sesame" not in repr(settings)


@contextmanager
def serving_http2(account: Account, folder: Path) -> Iterator[str]:
    """Serve an account over TLS, by a server that offers HTTP/2."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, *names],
        check=True,
        capture_output=True,
    )
    config = Config()
    config.bind, config.certfile, config.keyfile = ["127.0.0.1:0"], str(certificate), str(key)
    config.errorlog = None
    sockets = config.create_sockets()
    port = sockets.secure_sockets[0].getsockname()[1]
    config.create_sockets = lambda: sockets  # type: ignore[method-assign]
    stop = threading.Event()

    async def run() -> None:
        await serve(application(account), config, shutdown_trigger=lambda: asyncio.to_thread(stop.wait))

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join(10)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, for a certificate")
def test_http_2_is_spoken_where_it_is_offered_over_one_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    for number in range(250):
        account.create(job_body(f"job {number}"))
    with serving_http2(account, tmp_path) as address:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))

        async def work() -> tuple[int, str]:
            async with CloudClient(CloudSettings(ACCOUNT, TOKEN, address, 1e6)) as client:
                return len(await client.jobs()), client.transport.http_version

        assert asyncio.run(work()) == (250, "HTTP/2")
