"""A receiver as it runs in production: real HTTP, a real Prefect server, and processes that are killed."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.processes import wait_until
from tests.support.webhook.deliveries import FACEBOOK_ADS, SECRET, body, notification
from tests.support.webhook.receiver import Deployment, Receiver, receiver_in

NOWHERE = "http://127.0.0.1:9/api"


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """Start a receiver whose Prefect does not answer: it takes deliveries all the same."""
    folder = tmp_path_factory.mktemp("receiver")
    with receiver_in(folder, PREFECT_API_URL=NOWHERE, TRIBUTARY_WEBHOOK_READ_SECONDS="1") as receiver:
        receiver.start()
        yield receiver


def talk(receiver: Receiver, *parts: bytes) -> bytes:
    """Send bytes as they are, and return all that comes back until the receiver hangs up."""
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while received := connection.recv(65536):
            answer += received
        return answer


def request(receiver: Receiver, content: bytes, *headers: str, length: int | None = None) -> bytes:
    """Return a request as the bytes that a client would send."""
    path = urlsplit(receiver.url).path
    lines = [f"POST {path} HTTP/1.1", "Host: receiver", f"Content-Length: {len(content) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + content


def test_whatever_is_killed_every_sync_gets_one_run(tmp_path: Path, deployment: Deployment) -> None:
    """Three times each, while Prefect is away; then the receiver is killed, and Prefect comes back."""
    with receiver_in(tmp_path, TRIBUTARY_WEBHOOK_DEPLOYMENT=deployment.name) as receiver:
        receiver.start(PREFECT_API_URL=NOWHERE)
        documents = [notification(job_id=job) for job in range(1, 9) for _ in range(3)]
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(receiver.deliver, documents))
        assert sorted(statuses) == [200] * 16 + [202] * 8
        receiver.kill()
        receiver.start(PREFECT_API_URL=deployment.api)
        assert receiver.deliver(notification(job_id=1)) == 200
        assert receiver.deliver(notification(job_id=9)) == 202
        wait_until(lambda: len(deployment.runs()) >= 9, "every sync has a run")
        assert deployment.jobs() == sorted([str(job)] for job in range(1, 10))
        assert SECRET not in receiver.log()


def test_syncs_that_end_together_are_one_run(tmp_path: Path, deployment: Deployment) -> None:
    window = {"TRIBUTARY_WEBHOOK_WINDOW_SECONDS": "1", "TRIBUTARY_WEBHOOK_DEPLOYMENT": deployment.name}
    with receiver_in(tmp_path, **window, PREFECT_API_URL=deployment.api) as receiver:
        receiver.start()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(receiver.deliver, [notification(job_id=1), notification(FACEBOOK_ADS, job_id=2)]))
        wait_until(lambda: len(deployment.runs()), "there is a run")
        assert deployment.jobs() == [["1", "2"]]
        (run,) = deployment.runs()
        assert run["parameters"]["source"] == ["facebook_ads", "google_ads"]


def test_a_client_that_asks_for_http_2_is_answered_with_its_body_read(lonely: Receiver) -> None:
    """Airbyte's Java client sends these headers over plain http; servers that accept lose the body."""
    from h2.connection import H2Connection

    settings = H2Connection().initiate_upgrade_connection()
    assert settings
    headers = ["Connection: Upgrade, HTTP2-Settings, close", "Upgrade: h2c", f"HTTP2-Settings: {settings.decode()}"]
    answer = talk(lonely, request(lonely, body(notification(job_id=501)), *headers))
    assert answer.startswith(b"HTTP/1.1 202"), answer
    assert b'"accepted"' in answer


def test_airbytes_own_client_delivers_whole(lonely: Receiver, tmp_path: Path) -> None:
    """The bytes are those of Java's HttpClient in its HTTP/2 mode, which is what Airbyte calls webhooks with."""
    java = shutil.which("java")
    if java is None or shutil.which("javac") is None:
        pytest.skip("needs a JDK, 11 or later")
    (tmp_path / "body").write_bytes(body(notification(job_id=502, errorMessage="x" * 20_000)))
    command = [java, "-XX:TieredStopAtLevel=1", Path(__file__).with_name("Deliver.java"), lonely.url, tmp_path / "body"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith('202 HTTP_1_1 {"outcome":"accepted"'), done.stdout + done.stderr


def test_who_says_nothing_is_hung_up_on(lonely: Receiver) -> None:
    assert talk(lonely) == b""
    assert talk(lonely, b"POST /webhooks/airbyte HTT") == b""


def test_who_sends_half_a_body_is_told_that_it_took_too_long(lonely: Receiver) -> None:
    answer = talk(lonely, request(lonely, body(notification())[:50], "Connection: close", length=500))
    assert answer.startswith(b"HTTP/1.1 408"), answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nPOST /webhooks/air", b"HTTP/1.1 200"),
        (b"POST /webhooks/airbyte HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", b"HTTP/1.1 401"),
        (b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", b"HTTP/1.1 405"),
    ],
)
def test_who_is_answered_and_then_keeps_the_connection_busy_is_hung_up_on(
    lonely: Receiver, text: bytes, answer: bytes
) -> None:
    assert talk(lonely, text).startswith(answer)


def test_who_reads_no_answers_is_hung_up_on(lonely: Receiver) -> None:
    with (
        socket.create_connection(("127.0.0.1", lonely.port), timeout=60) as connection,
        pytest.raises(ConnectionError),
    ):
        while True:
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 100)


def test_a_delivery_is_taken_while_hundreds_of_connections_of_its_address_keep_the_receiver_waiting(
    tmp_path: Path,
) -> None:
    patient = {"PREFECT_API_URL": NOWHERE, "TRIBUTARY_WEBHOOK_READ_SECONDS": "600"}
    with receiver_in(tmp_path, **patient) as receiver, ExitStack() as stack:
        receiver.start()
        for number in range(530):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", receiver.port), timeout=60))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nPOST /webhooks/air")
            if number % 50 == 0 or number > 525:
                assert receiver.deliver(notification(job_id=1000 + number)) == 202


@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST /webhooks/airbyte HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"POST /webhooks/airbyte HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_proper_request_harms_nobody(lonely: Receiver, text: bytes) -> None:
    answer = talk(lonely, text)
    assert not answer.startswith(b"HTTP/1.1 5"), answer
    assert lonely.deliver({"text": "still there"}) == 200
