"""The receiver as an AWS Lambda function: handler `deployments.webhook.aws_lambda.handler`.

    Airbyte ── API Gateway ── this function ── SQS queue ── this function ── Prefect

A function has no durable disk, so a queue keeps the deliveries: the function answers when SQS has stored one, is called
again with messages of the queue, and returns to the queue those that Prefect did not accept. Every sync is a run of its
own; only a spool (`python -m deployments.webhook serve`) combines syncs that end together into one run.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

import httpx
from starlette.applications import Starlette

from deployments.webhook.inbox.delivery import Delivery
from deployments.webhook.inbox.metrics import Metrics
from deployments.webhook.inbox.spool import Backlog, Stored
from deployments.webhook.receive.app import ReceiverDesk, create_app, desk_of
from deployments.webhook.receive.keys import keys_of
from deployments.webhook.receive.settings import (
    PREFIX,
    PREVIOUS_SECRET_BLOCK,
    SECRET_BLOCK,
    WebhookSettings,
    load_settings,
)
from deployments.webhook.start.airbyte_jobs import find_jobs
from deployments.webhook.start.alerts import SyncAlerts
from deployments.webhook.start.dispatcher import DOUBT_SECONDS
from deployments.webhook.start.prefect_api import PrefectApi, prefect_address
from deployments.webhook.start.starter import Starter
from deployments.webhook.start.verdict import judge
from flows.services.airbyte.sync_events import AirbyteSync
from infrastructure.errors import ConfigError, UpstreamUnavailable

logger = logging.getLogger(__name__)

Json = dict[str, Any]


@dataclass(frozen=True)
class QueueInbox:
    """Put deliveries into an SQS queue."""

    send: Callable[[str], object]

    async def add(self, delivery: Delivery) -> Stored:
        """Store a delivery; when this returns, the queue has it."""
        await asyncio.to_thread(self.send, json.dumps(asdict(delivery)))
        return "accepted"

    def backlog(self) -> Backlog:
        """Return an empty backlog: SQS has its own metrics."""
        return Backlog(0, None, None)


def handler(event: Json, _: object) -> Json:
    """Answer a request of API Gateway, or process messages of SQS."""
    logging.getLogger().setLevel(logging.INFO)
    settings, desk = _receiver()
    if "Records" in event:
        return asyncio.run(work_off(event, settings, desk))
    return asyncio.run(answer(event, settings, desk))


async def answer(event: Mapping[str, Any], settings: WebhookSettings, desk: ReceiverDesk) -> Json:
    """Answer a request that came as an event of API Gateway, of an HTTP API (2.0) or a REST API (1.0)."""
    if not desk.keys and not settings.secret:
        await _read_secrets(desk, settings)
    context: Mapping[str, Any] = event.get("requestContext") or {}
    http: Mapping[str, Any] = context.get("http") or {}
    path = str(event.get("rawPath") or event.get("path") or "/").removeprefix(f"/{context.get('stage')}")
    source: Mapping[str, Any] = http or context.get("identity") or {}
    body = str(event.get("body") or "")
    app: Starlette = create_app(desk)
    transport = httpx.ASGITransport(app, client=(str(source.get("sourceIp") or "unknown"), 0))
    async with httpx.AsyncClient(transport=transport, base_url="https://receiver") as client:
        said = await client.request(
            str(http.get("method") or event.get("httpMethod") or "GET"),
            quote(path, safe="/%"),
            content=base64.b64decode(body) if event.get("isBase64Encoded") else body.encode(),
            headers={name: value for name, value in (event.get("headers") or {}).items() if name.lower() != "host"},
        )
    return {"statusCode": said.status_code, "headers": dict(said.headers), "body": said.text, "isBase64Encoded": False}


async def work_off(event: Mapping[str, Any], settings: WebhookSettings, desk: ReceiverDesk) -> Json:
    """Process messages of the queue, and return those that it has to keep (needs ReportBatchItemFailures)."""
    prefect = PrefectApi(prefect_address(), settings.deployment)
    starter = Starter(prefect, lambda: desk.connections, settings.target)
    left: list[Json] = []
    try:
        for record in event["Records"]:
            received_at = int(record["attributes"]["SentTimestamp"]) / 1000
            try:
                await _deal(
                    Delivery(**json.loads(record["body"])), received_at, prefect, starter, desk, settings.target
                )
            except (UpstreamUnavailable, ConfigError) as exc:
                logger.error("A delivery stays in the queue: %s", exc)
                left.append({"itemIdentifier": record["messageId"]})
    finally:
        await prefect.close()
    return {"batchItemFailures": left}


async def _deal(
    delivery: Delivery, received_at: float, prefect: PrefectApi, starter: Starter, desk: ReceiverDesk, target: str
) -> None:
    if not delivery.succeeded or delivery.job_id is None:
        airbyte = await find_jobs(prefect)
        is_last_try = time.time() - received_at > DOUBT_SECONDS
        verdict = await asyncio.to_thread(judge, delivery, airbyte, received_at, is_last_try)
        delivery = verdict.delivery
        if verdict.action == "alert":
            logger.warning("Sync %s of %s failed: %s", delivery.job_id, delivery.connection_id, delivery.reason)
            alerts = SyncAlerts(lambda: desk.connections, target)
            await asyncio.to_thread(alerts.open, delivery, delivery.reason)
        if verdict.action != "start":
            return
    (result,) = await starter.start([[AirbyteSync(delivery.connection_id, delivery.job_id or 0)]])
    if isinstance(result, Exception):
        raise result
    if result:
        logger.info("Flow run %s for job %s of %s", result.flow_run_id, delivery.job_id, delivery.connection_id)


async def _read_secrets(desk: ReceiverDesk, settings: WebhookSettings) -> None:
    prefect = PrefectApi(prefect_address(), settings.deployment)
    try:
        desk.keys = keys_of([await prefect.read_secret(name) for name in (SECRET_BLOCK, PREVIOUS_SECRET_BLOCK)])
    except (UpstreamUnavailable, ConfigError) as exc:
        logger.error("The secret can't be read: %s", exc)
    finally:
        await prefect.close()


@cache
def _receiver() -> tuple[WebhookSettings, ReceiverDesk]:
    """Return what an instance of the function keeps between calls."""
    settings = load_settings()
    if not settings.queue_url:
        raise ConfigError(f"Set {PREFIX}QUEUE_URL to the address of the SQS queue that keeps deliveries.")
    import boto3  # pyright: ignore[reportMissingImports]  (Lambda's Python has it)

    queue: Any = boto3.client("sqs", region_name=os.environ.get("AWS_REGION"))

    def send(body: str) -> None:
        queue.send_message(QueueUrl=settings.queue_url, MessageBody=body)

    return settings, desk_of(settings, QueueInbox(send), Metrics())
