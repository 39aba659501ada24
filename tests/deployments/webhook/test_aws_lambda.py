"""The function on AWS Lambda: requests as API Gateway hands them over, and messages as SQS does."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from deployments.webhook.aws_lambda import QueueInbox, answer, work_off
from deployments.webhook.inbox.metrics import Metrics
from deployments.webhook.receive.app import ReceiverDesk, desk_of
from deployments.webhook.receive.settings import WebhookSettings, load_settings
from tests.support.processes import wait_until
from tests.support.webhook.deliveries import GOOGLE_ADS, SECRET, notification, write_project
from tests.support.webhook.receiver import Deployment

PATH = f"/webhooks/airbyte/{SECRET}"


class Function:
    """The function with a queue that is a list."""

    def __init__(self, folder: Path, deployment: str) -> None:
        self.queue: list[str] = []
        self.settings: WebhookSettings = load_settings(
            secret=SECRET, project_dir=write_project(folder / "project"), deployment=deployment
        )
        self.desk: ReceiverDesk = desk_of(self.settings, QueueInbox(self.queue.append), Metrics())

    def ask(self, event: dict[str, Any]) -> tuple[int, str]:
        said = asyncio.run(answer(event, self.settings, self.desk))
        return said["statusCode"], json.loads(said["body"])["outcome"]

    def work_off(self) -> list[str]:
        records = [
            {"messageId": str(number), "body": body, "attributes": {"SentTimestamp": "1795270000000"}}
            for number, body in enumerate(self.queue)
        ]
        left = asyncio.run(work_off({"Records": records}, self.settings, self.desk))
        return [item["itemIdentifier"] for item in left["batchItemFailures"]]


def http_api(body: str, path: str = PATH, is_base64: bool = False, **headers: str) -> dict[str, Any]:
    """Return the event of an HTTP API, in format 2.0."""
    context = {"http": {"method": "POST", "path": path, "sourceIp": "192.0.2.1"}, "stage": "$default"}
    return {
        "version": "2.0",
        "rawPath": path,
        "headers": {"content-type": "application/json", "host": "x.execute-api.amazonaws.com", **headers},
        "requestContext": context,
        "body": body,
        "isBase64Encoded": is_base64,
    }


def rest_api(body: str, path: str) -> dict[str, Any]:
    """Return the event of a REST API, in format 1.0, on a stage of its own."""
    context = {"identity": {"sourceIp": "192.0.2.1"}, "stage": "prod"}
    return {"httpMethod": "POST", "path": path, "headers": None, "requestContext": context, "body": body}


@pytest.fixture
def function(tmp_path: Path) -> Function:
    return Function(tmp_path, "dbt-transformation-flow/production")


def test_a_delivery_is_in_the_queue_before_it_is_answered(function: Function) -> None:
    body = json.dumps(notification(job_id=5))
    assert function.ask(http_api(body)) == (202, "accepted")
    assert function.ask(http_api(base64.b64encode(body.encode()).decode(), is_base64=True)) == (202, "accepted")
    assert function.ask(http_api(body, "/webhooks/airbyte", **{"x-api-key": SECRET})) == (202, "accepted")
    assert function.ask(rest_api(body, f"/prod{PATH}")) == (202, "accepted")
    assert [json.loads(message)["job_id"] for message in function.queue] == [5] * 4


def test_the_same_rules_hold_as_on_a_server(function: Function) -> None:
    assert function.ask(http_api("")) == (400, "empty")
    assert function.ask(http_api("{}", "/webhooks/airbyte/wrong")) == (401, "wrong secret")
    assert function.ask(http_api(json.dumps(notification("0f8fad5b-d9cb-469f-a165-70867728950e"))))[0] == 200
    assert function.queue == []


def test_a_queue_that_does_not_take_it_is_an_error(function: Function) -> None:
    def refuse(_: str) -> None:
        raise OSError("no route to the queue")

    function.desk.inbox = QueueInbox(refuse)
    assert function.ask(http_api(json.dumps(notification()))) == (503, "not stored")


def test_what_the_queue_holds_becomes_one_run_per_sync(
    tmp_path: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = Function(tmp_path, deployment.name)
    for job in (1, 1, 2):
        function.ask(http_api(json.dumps(notification(GOOGLE_ADS, job))))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert function.work_off() == ["0", "1", "2"], "Prefect is away: the queue keeps them all"
    monkeypatch.setenv("PREFECT_API_URL", deployment.api)
    # Until nothing stays: on a busy machine the server's database is locked for a moment. SQS may also deliver twice.
    for _ in range(2):
        wait_until(lambda: function.work_off() == [], "the queue is worked off")
    assert deployment.jobs() == [["1"], ["2"]]
