"""What the receiver answers, and what it has stored by then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from deployments.webhook.inbox.inbox import SpoolInbox
from deployments.webhook.inbox.metrics import Metrics
from deployments.webhook.inbox.spool import Spool
from deployments.webhook.receive.app import ReceiverDesk, create_app, desk_of, shows_secret
from deployments.webhook.receive.keys import keys_of
from deployments.webhook.receive.limits import RateLimit
from deployments.webhook.receive.settings import load_settings
from infrastructure.errors import ConfigError
from tests.support.webhook.deliveries import GOOGLE_ADS, SECRET, STRANGER, body, flat, notification, write_project

PATH = "/webhooks/airbyte"
WITH_KEY = {"x-api-key": SECRET}


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with closing(Spool(tmp_path / "spool.db")) as spool:
        yield spool


@pytest.fixture
def desk(spool: Spool, tmp_path: Path) -> ReceiverDesk:
    settings = load_settings(secret=SECRET, max_body_bytes=50_000, project_dir=write_project(tmp_path / "project"))
    return desk_of(settings, SpoolInbox(spool, lambda: None), Metrics())


@pytest.fixture
def client(desk: ReceiverDesk) -> Client:
    return Client(create_app(desk))


class Client:
    """Ask an app as a sender would, without a network between."""

    def __init__(self, app: Starlette) -> None:
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("127.0.0.1", 1234))

    def post(self, path: str, **request: Any) -> httpx.Response:
        return self.ask("POST", path, **request)

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://receiver") as client:
                return await client.request(method, path, **request)

        return asyncio.run(ask())


async def in_parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def outcome(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["outcome"]


def test_a_sync_is_stored_before_it_is_answered_and_only_once(client: Client, spool: Spool) -> None:
    assert outcome(client.post(f"{PATH}/{SECRET}", json=notification())) == (202, "accepted")
    assert [event.delivery.job_id for event in spool.events()] == [9988]
    assert outcome(client.post(PATH, json=notification(), headers=WITH_KEY)) == (200, "duplicate")
    assert outcome(client.post(PATH, json=flat(jobId=9989), headers=WITH_KEY)) == (202, "accepted")
    assert len(spool.events()) == 2


def test_a_connection_that_no_source_names_is_logged_and_no_mistake_of_the_sender(
    client: Client, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    """Airbyte's test button sends ids that it makes up."""
    answer = client.post(PATH, json=notification(STRANGER, success=False), headers=WITH_KEY)
    assert outcome(answer) == (200, "unknown connection")
    assert STRANGER in caplog.text
    assert spool.events() == []


def test_a_message_about_something_else_is_taken_and_passed_over(client: Client, spool: Spool) -> None:
    assert outcome(client.post(PATH, json={"text": "hello"}, headers=WITH_KEY)) == (200, "passed over")
    assert spool.events() == []


@pytest.mark.parametrize(
    ("path", "headers"),
    [(PATH, {}), (PATH, {"x-api-key": "wrong"}), (f"{PATH}/wrong", {}), (f"{PATH}/wrong", WITH_KEY)],
)
def test_without_the_secret_nothing_is_read(
    client: Client, spool: Spool, path: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert outcome(client.post(path, json=notification(), headers=headers)) == (401, "wrong secret")
    assert spool.events() == []
    assert "wrong" not in caplog.text.replace("a wrong secret", "")


def test_the_secret_before_stays_valid_while_it_is_changed(desk: ReceiverDesk, client: Client) -> None:
    desk.keys = keys_of(["a-newer-secret-0123456789", SECRET])
    assert client.post(f"{PATH}/{SECRET}", json=notification()).status_code == 202
    assert client.post(f"{PATH}/a-newer-secret-0123456789", json=notification()).status_code == 200
    desk.keys = keys_of(["a-newer-secret-0123456789"])
    assert client.post(f"{PATH}/{SECRET}", json=notification()).status_code == 401


def test_no_secret_gets_into_the_log_or_an_answer(
    client: Client, desk: ReceiverDesk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, "deployments")
    answers = [client.post(f"{PATH}/{SECRET}", content=text) for text in (b"", b"{", b"[]", body(notification()))]
    answers += [client.get(f"{PATH}/{SECRET}"), client.post(f"{PATH}/{SECRET}/more"), client.get(f"/{SECRET}")]

    async def full(_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(desk.inbox, "add", full)
    answers.append(client.post(f"{PATH}/{SECRET}", json=notification()))
    assert [answer.status_code for answer in answers] == [400, 400, 422, 202, 405, 404, 404, 503]
    assert SECRET not in caplog.text + "".join(answer.text for answer in answers)


def test_what_can_not_be_stored_is_not_accepted(
    client: Client, desk: ReceiverDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(desk.inbox, "add", full)
    answer = client.post(PATH, json=notification(), headers=WITH_KEY)
    assert outcome(answer) == (503, "not stored")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(("content", "status"), [(b"", 400), (b"\n", 400), (b"{]", 400), (b"{}", 422), (b"7", 422)])
def test_a_body_that_says_nothing_is_an_error(client: Client, content: bytes, status: int) -> None:
    assert client.post(PATH, content=content, headers=WITH_KEY).status_code == status


def test_a_large_body_is_refused_whether_or_not_it_says_how_large(client: Client) -> None:
    large = b" " * 60_000
    assert outcome(client.post(PATH, content=large, headers=WITH_KEY)) == (413, "too large")
    unsaid = client.post(PATH, content=in_parts(large), headers=WITH_KEY)
    assert outcome(unsaid) == (413, "too large")


def test_wrong_secrets_are_limited_and_never_stop_the_right_one_from_the_same_address(
    client: Client, desk: ReceiverDesk
) -> None:
    """Behind a TLS proxy every sender has one address, and Airbyte does not send again."""
    desk.wrong_rate = RateLimit(per_second=0.1, burst=2)
    guesses = [client.post(PATH, headers={"x-api-key": f"guess {number}"}) for number in range(4)]
    assert [answer.status_code for answer in guesses] == [401, 401, 429, 429]
    assert int(guesses[2].headers["retry-after"]) == 10
    right = [client.post(PATH, json=notification(job_id=job), headers=WITH_KEY).status_code for job in range(1, 60)]
    assert set(right) == {202}
    assert client.post(PATH, headers={"x-api-key": "guess"}).status_code == 429, "a right one forgives no wrong ones"


def test_pages_that_anybody_may_ask_for_do_not_keep_the_receiver_busy(
    client: Client, desk: ReceiverDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[None] = []
    shown: list[None] = []
    backlog, show = desk.inbox.backlog, desk.metrics.show
    monkeypatch.setattr(RateLimit, "retry_after", lambda *_: 60.0)
    monkeypatch.setattr(desk.inbox, "backlog", lambda: (counted.append(None), backlog())[1])
    monkeypatch.setattr(desk.metrics, "show", lambda found: (shown.append(None), show(found))[1])
    for path in ("/ready", "/metrics") * 5:
        assert client.get(path).status_code == 200
    assert (len(counted), len(shown)) == (1, 1)


def test_readiness_says_what_is_missing_and_does_not_ask_for_prefect(client: Client, desk: ReceiverDesk) -> None:
    assert client.get("/health").json() == {"status": "alive"}
    assert client.get("/ready").json() == {"status": "ready", "missing": [], "waiting": 0}
    desk.keys, desk.connections = keys_of([]), {}
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert len(answer.json()["missing"]) == 2
    assert client.post(PATH, json=notification(), headers=WITH_KEY).status_code == 503


def test_everything_is_counted_without_naming_anybody(client: Client) -> None:
    client.post(PATH, json=notification(), headers=WITH_KEY)
    client.post(PATH, json=notification(), headers=WITH_KEY)
    client.post(PATH, json=notification(STRANGER), headers=WITH_KEY)
    lines = client.get("/metrics").text.splitlines()
    assert 'tributary_webhook_requests_total{outcome="accepted"} 1.0' in lines
    assert 'tributary_webhook_requests_total{outcome="duplicate"} 1.0' in lines
    assert 'tributary_webhook_requests_total{outcome="unknown connection"} 1.0' in lines
    assert "tributary_webhook_waiting_events 1.0" in lines
    assert not [line for line in lines if GOOGLE_ADS in line or SECRET in line]


def test_settings_that_are_wrong_are_named_by_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBUTARY_WEBHOOK_WINDOW_SECONDS", "soon")
    monkeypatch.setenv("TRIBUTARY_WEBHOOK_DEPLOYMENT", "no slash")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert "TRIBUTARY_WEBHOOK_WINDOW_SECONDS" in str(caught.value)
    assert "TRIBUTARY_WEBHOOK_DEPLOYMENT" in str(caught.value)


@pytest.mark.parametrize(
    ("head", "is_sender"),
    [
        (f"POST {PATH}/{SECRET} HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (f"POST {PATH}/{SECRET}?again=1 HTTP/1.1\r\nHost: a\r\n\r\n{{}}", True),
        (f"POST {PATH} HTTP/1.1\r\nHost: a\r\nX-API-Key:{SECRET}\r\n\r\n", True),
        (f"POST {PATH} HTTP/1.1\nx-api-key: {SECRET} \n\n", True),
        (f"POST {PATH}/{SECRET}x HTTP/1.1\r\nHost: a\r\n\r\n", False),
        (f"POST {PATH} HTTP/1.1\r\nX-API-Key: a-guess-of-the-secret\r\n\r\n", False),
        (f"POST {PATH} HTTP/1.1\r\nX-Other-X-API-Key: {SECRET}\r\n\r\n", False),
        (f"POST {PATH} HTTP/1.1\r\nHost: a\r\n\r\n{SECRET}", False),
        ("GET /health HTTP/1.1\r\nHost: a\r\n\r\n", False),
        ("\x16\x03\x01\x02\xff", False),
        ("POST", False),
    ],
)
def test_who_shows_the_secret_is_known_by_the_head_of_the_request(
    desk: ReceiverDesk, head: str, is_sender: bool
) -> None:
    assert shows_secret(desk, head.encode("latin-1")) == is_sender
