"""The client against the stand-in, which refuses what Airbyte would not understand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows.services.airbyte.client import AirbyteClient, SyncPatience, find_airbyte, load_airbyte
from infrastructure.errors import ConfigError, UpstreamUnavailable
from tests.support.airbyte.server import AirbyteServer

SIGN_IN = ("0da998a2-0d7b-49c7-bb6e-9f7eb9cc68a0", "a secret that no message may hold")
UNKNOWN = "11111111-1111-4111-8111-111111111111"


class Clock:
    """Stand in for time, which passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def patience(self, **bounds: float) -> SyncPatience:
        return SyncPatience(sleep=self.sleep, clock=lambda: self.now, **bounds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connect(airbyte: AirbyteServer, clock: Clock) -> Iterator[Callable[..., AirbyteClient]]:
    opened: list[AirbyteClient] = []

    def connect_to(url: str | None = None, sign_in: tuple[str, str] | None = None, **bounds: Any) -> AirbyteClient:
        opened.append(AirbyteClient(url or airbyte.api_url, *(sign_in or (None, None)), clock.patience(**bounds)))
        return opened[-1]

    yield connect_to
    for client in opened:
        client.close()


@pytest.fixture
def client(connect: Callable[..., AirbyteClient]) -> AirbyteClient:
    return connect()


def test_the_newest_sync_is_the_one_that_was_started_last(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """The server lists the oldest first unless it is told otherwise."""
    connection = airbyte.add_connection()
    assert client.newest_sync(connection) is None
    ended_at = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    for _ in range(25):
        airbyte.add_job(connection, ended_at=ended_at - timedelta(days=1))
    newest = airbyte.add_job(connection, ended_at=ended_at)
    airbyte.add_job(connection, job_type="clear")
    airbyte.add_job(airbyte.add_connection())
    job = client.newest_sync(connection)
    assert job is not None
    assert (job.job_id, job.status, job.last_updated_at, job.rows_synced) == (newest, "succeeded", ended_at, 120)


def test_a_refresh_brings_data_and_a_clear_does_not(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    connection = airbyte.add_connection()
    refresh = airbyte.add_job(connection, job_type="refresh")
    airbyte.add_job(connection, job_type="reset")
    assert [job.job_id for job in client.loads_since(connection, datetime(2026, 1, 1, tzinfo=UTC))] == [refresh]


def test_jobs_since_a_time_are_all_there_however_many_pages_they_fill(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    connection = airbyte.add_connection()
    since = datetime.now(UTC) - timedelta(hours=1)
    airbyte.add_job(connection, ended_at=since - timedelta(minutes=1))
    wanted = [airbyte.add_job(connection, ended_at=since + timedelta(seconds=n)) for n in range(1, 206)]
    assert [job.job_id for job in client.loads_since(connection, since)] == wanted
    assert [request.query["offset"] for request in airbyte.asked("GET /jobs")] == ["0", "100", "200"]


def test_a_job_is_waited_for_until_its_status_is_final(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """An incomplete job has lost an attempt, not its life."""
    job_id = airbyte.add_job(
        airbyte.add_connection(), "pending", "queued", "running", "incomplete", "running", "failed"
    )
    job = client.wait(client.job(job_id))
    assert (job.status, job.has_ended) == ("failed", True)
    assert len(airbyte.asked("GET /jobs/{jobId}")) == 5


def test_the_pause_between_looks_grows_with_the_time_waited(clock: Clock) -> None:
    patience = clock.patience()
    assert [patience.pause_seconds(waited) for waited in (0, 10, 50, 200, 3000)] == [2, 2, 5, 20, 30]


def test_waiting_ends_at_the_deadline_and_says_where_the_sync_stands(
    airbyte: AirbyteServer, connect: Callable[..., AirbyteClient], clock: Clock
) -> None:
    connection = airbyte.add_connection()
    client = connect(deadline_seconds=100.0)
    running = client.job(airbyte.add_job(connection, "running"))
    with pytest.raises(UpstreamUnavailable, match=rf"job 41 of connection {connection} is running after 100 s"):
        client.wait(running)
    assert clock.now == 100.0


def test_a_sync_that_is_asked_for_runs_and_a_second_request_joins_it(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    connection = airbyte.add_connection()
    airbyte.add_job(connection)
    started = client.start_sync(connection)
    assert (started.status, started.job_id) == ("pending", 42)
    assert client.start_sync(connection).job_id == started.job_id
    assert client.wait(started).status == "succeeded"
    assert len(airbyte.jobs) == 2


def test_a_start_whose_answer_was_lost_starts_one_sync(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    connection = airbyte.add_connection()
    airbyte.fail_next("drop")
    running = airbyte.add_job(connection, "running")  # What the request did before its answer was lost.
    assert client.start_sync(connection).job_id == running


def test_a_sync_that_another_kind_of_job_holds_up_is_an_error_that_says_so(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    connection = airbyte.add_connection()
    airbyte.add_job(connection)
    airbyte.add_job(connection, "running", job_type="clear")
    with pytest.raises(UpstreamUnavailable, match=rf"not start a sync of connection {connection}: A sync is already"):
        client.start_sync(connection)


def test_a_token_is_asked_for_once_and_used_for_every_request(
    airbyte: AirbyteServer, connect: Callable[..., AirbyteClient]
) -> None:
    airbyte.sign_in = SIGN_IN
    client = connect(sign_in=SIGN_IN)
    connection = airbyte.add_connection()
    for _ in range(3):
        client.newest_sync(connection)
    assert len(airbyte.asked("POST /public/v1/applications/token")) == 1


def test_a_token_is_renewed_before_it_ends_and_once_when_it_is_refused(
    airbyte: AirbyteServer, connect: Callable[..., AirbyteClient], clock: Clock
) -> None:
    airbyte.sign_in, airbyte.token_seconds = SIGN_IN, 180
    client = connect(sign_in=SIGN_IN)
    connection = airbyte.add_connection()
    client.newest_sync(connection)
    clock.now += 163
    client.newest_sync(connection)
    assert len(airbyte.asked("POST /public/v1/applications/token")) == 2
    airbyte.forget_tokens()
    client.newest_sync(connection)
    assert len(airbyte.asked("POST /public/v1/applications/token")) == 3


@pytest.mark.parametrize("sign_in", [None, ("somebody", SIGN_IN[1])])
def test_refused_credentials_are_a_setting_to_mend_and_are_not_repeated(
    airbyte: AirbyteServer, connect: Callable[..., AirbyteClient], sign_in: tuple[str, str] | None
) -> None:
    airbyte.sign_in = SIGN_IN
    with pytest.raises(ConfigError, match=r"Airbyte refuses the credentials \(HTTP 401 .*AIRBYTE_CLIENT_ID") as raised:
        connect(sign_in=sign_in).newest_sync(airbyte.add_connection())
    assert SIGN_IN[1] not in str(raised.value)


def test_the_address_of_airbyte_cloud_is_spoken_to_alike(
    airbyte: AirbyteServer, connect: Callable[..., AirbyteClient]
) -> None:
    airbyte.sign_in = SIGN_IN
    connection = airbyte.add_connection()
    job_id = airbyte.add_job(connection, "failed", reason="The password is wrong.")
    client = connect(f"{airbyte.cloud_url}/", SIGN_IN)
    assert client.job(job_id).status == "failed"
    assert client.failure_reason(job_id) is None  # There is no Config API for users of it.


def test_why_a_sync_failed_is_what_the_config_api_says(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    connection = airbyte.add_connection()
    failed = airbyte.add_job(connection, "failed", reason="The password is wrong.")
    assert client.failure_reason(failed) == "The password is wrong."
    assert client.failure_reason(airbyte.add_job(connection)) is None
    airbyte.has_config_api = False
    assert client.failure_reason(failed) is None


def test_what_passes_by_itself_is_tried_again(airbyte: AirbyteServer, client: AirbyteClient, clock: Clock) -> None:
    connection = airbyte.add_connection()
    airbyte.fail_next(429, "drop", 503)
    assert client.newest_sync(connection) is None
    assert len(clock.slept) == 3


@pytest.mark.parametrize("fault", [429, 500, "drop"])
def test_an_airbyte_that_stays_away_is_an_upstream_failure(
    airbyte: AirbyteServer, client: AirbyteClient, fault: int | str
) -> None:
    airbyte.fail_next(*[fault] * 4)
    with pytest.raises(UpstreamUnavailable, match=r"Airbyte (failed \(HTTP|at http://127\.0\.0\.1)"):
        client.newest_sync(airbyte.add_connection())


def test_what_is_not_there_is_none_or_a_setting_to_mend(client: AirbyteClient) -> None:
    assert client.find_connection(UNKNOWN) is None
    with pytest.raises(ConfigError, match=r"refuses GET .*/jobs/7 \(HTTP 404\): The job is not known"):
        client.job(7)


def test_a_connections_status_and_schedule_are_its_settings(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    schedule = {"scheduleType": "cron", "cronExpression": "0 0 * * * ? UTC"}
    connection = client.find_connection(airbyte.add_connection(name="Facebook Ads", schedule=schedule))
    assert connection
    assert (connection.name, connection.status) == ("Facebook Ads", "active")
    assert connection.schedule.cron_expression == "0 0 * * * ? UTC"


def test_an_address_that_is_not_the_public_api_is_named(
    airbyte: AirbyteServer, connect: Callable[..., AirbyteClient]
) -> None:
    with pytest.raises(ConfigError, match=r"HTTP 404"):
        connect(f"{airbyte.root}/api/v1").newest_sync(airbyte.add_connection())
    with pytest.raises(ConfigError, match=r"airbyte\.example is not a valid address"):
        connect("airbyte.example").newest_sync(UNKNOWN)


def test_a_status_that_airbyte_does_not_document_is_not_guessed_at(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    job_id = airbyte.add_job(airbyte.add_connection(), "cancelling")
    with pytest.raises(
        ConfigError, match=r"not Airbyte's public API, or a version that is not supported \(see status\)"
    ):
        client.job(job_id)
    airbyte.mistakes.clear()


def test_airbyte_is_found_by_its_blocks(airbyte: AirbyteServer, prefect_server: str) -> None:
    from prefect.blocks.system import Secret

    assert find_airbyte() is None
    with pytest.raises(ConfigError, match=r"no block secret/airbyte-api-url\. Set AIRBYTE_API_URL"):
        load_airbyte()
    airbyte.sign_in = SIGN_IN
    values = {"airbyte-api-url": airbyte.api_url, "airbyte-client-id": SIGN_IN[0], "airbyte-client-secret": SIGN_IN[1]}
    for name, value in values.items():
        Secret(value=value).save(name, overwrite=True)
    try:
        with load_airbyte() as client:
            assert client.newest_sync(airbyte.add_connection()) is None
    finally:
        for name in values:
            Secret.delete(name)
