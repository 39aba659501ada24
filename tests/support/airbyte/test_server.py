"""The stand-in answers in the shapes that Airbyte publishes, and refuses what Airbyte would not understand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.airbyte.description import FILE, Description, extract
from tests.support.airbyte.server import ENDED, AirbyteServer, airbyte_running, java_time


@pytest.fixture
def server() -> Iterator[AirbyteServer]:
    with airbyte_running() as running:
        yield running


def ask(server: AirbyteServer, method: str, path: str, **options: Any) -> httpx.Response:
    return httpx.request(method, f"{server.api_url}{path}", trust_env=False, **options)


def test_the_description_is_the_published_one() -> None:
    folder = os.environ.get("TRIBUTARY_TEST_AIRBYTE_OPENAPI")
    if not folder:
        pytest.skip("needs Airbyte's OpenAPI files: name their folder with TRIBUTARY_TEST_AIRBYTE_OPENAPI")
    assert json.loads(FILE.read_text(encoding="utf-8")) == extract(Path(folder))


def test_every_status_and_every_operation_answers_in_the_published_shape(server: AirbyteServer) -> None:
    server.sign_in = ("me", "secret")
    connection = server.add_connection()
    for status in Description().enum("JobStatusEnum"):
        server.add_job(connection, status, reason="The password is wrong." if status == "failed" else None)
    body = {"client_id": "me", "client_secret": "secret", "grant_type": "client_credentials"}
    token = ask(server, "POST", "/applications/token", json=body).json()
    signed = {"Authorization": f"{token['token_type']} {token['access_token']}"}
    assert ask(server, "GET", "/health").is_success
    listed = ask(server, "GET", "/jobs", params={"limit": 3, "orderBy": "createdAt|DESC"}, headers=signed).json()
    assert [job["jobId"] for job in listed["data"]] == sorted(server.jobs, reverse=True)[:3]
    for job_id in server.jobs:
        job = ask(server, "GET", f"/jobs/{job_id}", headers=signed).json()
        assert ("lastUpdatedAt" in job) == (job["status"] in ENDED)
    assert ask(server, "GET", "/connections", headers=signed).json()["data"][0]["connectionId"] == connection
    assert ask(server, "GET", f"/connections/{connection}", headers=signed).is_success
    start = {"connectionId": connection, "jobType": "sync"}
    assert ask(server, "POST", "/jobs", json=start, headers=signed).status_code == 409
    for job in server.jobs.values():
        server.finish(job.job_id, reason=job.reason)
    started = ask(server, "POST", "/jobs", json=start, headers=signed).json()
    assert ask(server, "DELETE", f"/jobs/{started['jobId']}", headers=signed).json()["status"] == "cancelled"
    for job_id in server.jobs:
        url = f"{server.root}/api/v1/jobs/get_without_logs"
        assert httpx.post(url, json={"id": job_id}, headers=signed, trust_env=False).is_success
    assert server.mistakes == []


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "101"}, {"jobType": "replication"}, {"status": "cancelling"}, {"since": "1"}]
)
def test_a_parameter_that_airbyte_does_not_take_is_refused(server: AirbyteServer, query: dict[str, str]) -> None:
    answer = ask(server, "GET", "/jobs", params=query)
    assert answer.status_code == 400
    assert next(iter(query)) in answer.json()["detail"]


def test_an_answer_of_another_shape_is_noticed() -> None:
    job = {"jobId": "41", "status": "cancelling", "jobType": "sync", "startTime": "", "connectionId": "x", "more": 1}
    wrong = "\n".join(Description().answer_errors("GET /jobs/{jobId}", 200, job))
    assert "'41' is not of type 'integer'" in wrong
    assert "'cancelling' is not one of" in wrong
    assert "'more' was unexpected" in wrong


def test_faults_come_in_the_order_in_which_they_were_asked_for(server: AirbyteServer) -> None:
    server.fail_next(503, "drop")
    assert ask(server, "GET", "/health").status_code == 503
    with pytest.raises(httpx.RemoteProtocolError):
        ask(server, "GET", "/health")
    assert ask(server, "GET", "/health").is_success


def test_a_whole_minute_has_no_seconds_as_in_java() -> None:
    assert java_time(datetime(2026, 11, 21, 9, 30, tzinfo=UTC)) == "2026-11-21T09:30Z"
    assert datetime.fromisoformat("2026-11-21T09:30Z") == datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
