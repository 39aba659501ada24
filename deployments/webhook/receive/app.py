"""The receiver as an ASGI app: authentication, limits, storing of deliveries, and answers."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.webhook.inbox.delivery import BadBody, Delivery, read_delivery
from deployments.webhook.inbox.inbox import Inbox
from deployments.webhook.inbox.metrics import Metrics
from deployments.webhook.inbox.spool import Backlog
from deployments.webhook.receive.keys import Keys, keys_of
from deployments.webhook.receive.limits import RateLimit, Seldom, peer_of
from deployments.webhook.receive.openapi import KEY_HEADER, PATH, description
from deployments.webhook.receive.settings import WebhookSettings
from flows.services.airbyte.sync_events import connections_of

logger = logging.getLogger(__name__)

_KEY_IN_HEAD = re.compile(rb"^" + KEY_HEADER.encode() + rb":([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_RETRY_STORE_SECONDS = 5


@dataclass
class ReceiverDesk:
    """What a receiver needs to answer requests.

    Attributes:
        keys: replaced when secrets change.
        connections: the dbt sources by Airbyte connection; replaced when the project changes.
        wrong_rate: how often a peer may send a wrong secret; requests with the right one are not limited.
    """

    inbox: Inbox
    metrics: Metrics
    wrong_rate: RateLimit
    max_body_bytes: int
    read_seconds: float
    keys: Keys = field(default_factory=Keys)
    connections: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])


def desk_of(settings: WebhookSettings, inbox: Inbox, metrics: Metrics) -> ReceiverDesk:
    """Return the desk for these settings, with their secrets and the sources of their project.

    Raises:
        ConfigError: a secret is too short, or the project can't be read.
    """
    secrets = [secret.get_secret_value() for secret in (settings.secret, settings.previous_secret) if secret]
    return ReceiverDesk(
        inbox=inbox,
        metrics=metrics,
        wrong_rate=RateLimit(settings.wrong_per_minute / 60, max(1, round(settings.wrong_per_minute))),
        max_body_bytes=settings.max_body_bytes,
        read_seconds=settings.read_seconds,
        keys=keys_of(secrets),
        connections=connections_of(settings.project_dir, os.environ),
    )


Lifespan = Callable[[Starlette], AsyncIterator[None]]


class DeliveryRefused(Exception):
    """Say that a request is refused, with the status and text of the answer."""

    def __init__(self, status: int, outcome: str, detail: str, retry_seconds: float = 0.0) -> None:
        super().__init__(detail)
        self.status, self.outcome, self.detail = status, outcome, detail
        self.headers = {"retry-after": str(max(1, round(retry_seconds)))} if retry_seconds else {}


def create_app(desk: ReceiverDesk, lifespan: Lifespan | None = None) -> Starlette:
    """Return the app.

    Args:
        lifespan: entered before the first request, and left after the last.
    """

    async def deliver(request: Request) -> Response:
        arrived = time.perf_counter()
        try:
            status, outcome, detail = await _receive(desk, request)
        except DeliveryRefused as exc:
            desk.metrics.requests.labels(exc.outcome).inc()
            return _answer(exc.status, exc.outcome, exc.detail, exc.headers)
        desk.metrics.requests.labels(outcome).inc()
        if outcome == "accepted":
            desk.metrics.accept_seconds.observe(time.perf_counter() - arrived)
        return _answer(status, outcome, detail)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(_: Request) -> Response:
        return await _ready(desk, backlog)

    async def metrics(_: Request) -> Response:
        return Response(await shown.get(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(_: Request) -> Response:
        return JSONResponse(description(desk.max_body_bytes))

    async def show() -> bytes:
        return desk.metrics.show(await backlog.get())

    # These pages need no secret, and cost more than accepting a delivery.
    backlog = Seldom(lambda: run_in_threadpool(desk.inbox.backlog))
    shown = Seldom(show)
    return Starlette(
        routes=[
            Route(PATH, deliver, methods=["POST"]),
            Route(PATH + "/{secret}", deliver, methods=["POST"]),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi),
        ],
        exception_handlers={HTTPException: _no_such_page, Exception: _bug},
        lifespan=asynccontextmanager(lifespan) if lifespan else None,
    )


async def _receive(desk: ReceiverDesk, request: Request) -> tuple[int, str, str]:
    """Return status, outcome and text of the answer to a delivery."""
    peer = peer_of(request.client.host if request.client else None)
    _let_in(desk, request, peer)
    body = await _read(desk, request)
    try:
        delivery = read_delivery(body)
    except BadBody as exc:
        logger.warning("A delivery from %s can't be read: %s", peer, exc)
        raise DeliveryRefused(exc.status, "empty" if not body.strip() else "unreadable", str(exc)) from exc
    if delivery is None:
        return 200, "passed over", "The message is not about a finished sync."
    if delivery.connection_id not in desk.connections:
        logger.warning(
            "Job %s of connection %s (%r) starts nothing: no source of the project names the connection in its meta",
            delivery.job_id,
            delivery.connection_id,
            delivery.name,
        )
        return 200, "unknown connection", "No source of the project is loaded by this connection."
    return await _store(desk, delivery)


def shows_secret(desk: ReceiverDesk, head: bytes) -> bool:
    """Return whether the head of a request has a valid secret, so that it is served first; `_let_in` checks again."""
    line, _, headers = head.partition(b"\n")
    path = line.split(b" ")[1:2]
    in_path = path[0].partition(b"?")[0].removeprefix(PATH.encode() + b"/") if path else b""
    in_header = _KEY_IN_HEAD.search(headers)
    shown = [unquote(in_path.decode("latin-1")), in_header[1].decode("latin-1").strip() if in_header else ""]
    return any(desk.keys.accept(each) for each in shown if each)


def _let_in(desk: ReceiverDesk, request: Request, peer: str) -> None:
    if not desk.keys:
        raise DeliveryRefused(503, "not ready", "The receiver does not know its secret yet.", _RETRY_STORE_SECONDS)
    shown = request.path_params.get("secret") or request.headers.get(KEY_HEADER) or ""
    if not desk.keys.accept(shown):
        wait_seconds = desk.wrong_rate.retry_after(peer)
        if wait_seconds:
            raise DeliveryRefused(429, "too many wrong", "Too many wrong secrets.", wait_seconds)
        logger.warning("A delivery from %s has %s", peer, "a wrong secret" if shown else "no secret")
        raise DeliveryRefused(401, "wrong secret", f"Send the secret as the last part of the path, or as {KEY_HEADER}.")


async def _read(desk: ReceiverDesk, request: Request) -> bytes:
    too_large = DeliveryRefused(413, "too large", f"The body is larger than {desk.max_body_bytes} bytes.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > desk.max_body_bytes:
        raise too_large
    parts = bytearray()
    try:
        async with asyncio.timeout(desk.read_seconds):
            async for part in request.stream():
                parts += part
                if len(parts) > desk.max_body_bytes:
                    raise too_large
    except TimeoutError as exc:
        raise DeliveryRefused(408, "too slow", f"The body did not arrive within {desk.read_seconds:g} s.") from exc
    except ClientDisconnect as exc:
        raise DeliveryRefused(400, "cut off", "The sender closed the connection.") from exc
    return bytes(parts)


async def _store(desk: ReceiverDesk, delivery: Delivery) -> tuple[int, str, str]:
    try:
        stored = await desk.inbox.add(delivery)
    except Exception as exc:
        logger.exception("A delivery could not be stored")
        raise DeliveryRefused(503, "not stored", "The delivery could not be stored.", _RETRY_STORE_SECONDS) from exc
    if stored == "duplicate":
        return 200, stored, "This was delivered before."
    return 202, stored, "The delivery is stored."


async def _ready(desk: ReceiverDesk, backlog: Seldom[Backlog]) -> Response:
    """Answer whether deliveries can be accepted; Prefect is not needed for that."""
    missing: list[str] = []
    if not desk.keys:
        missing.append("the secret is not known")
    if not desk.connections:
        missing.append("no source of the project names an Airbyte connection")
    document: dict[str, Any] = {}
    try:
        waiting = (await backlog.get()).waiting
    except Exception:
        logger.exception("The store of deliveries can't be read")
        missing.append("the store of deliveries can't be read")
    else:
        document = {"waiting": waiting}
    document |= {"status": "not ready" if missing else "ready", "missing": missing}
    return JSONResponse(document, 503 if missing else 200)


def _answer(status: int, outcome: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"outcome": outcome, "detail": detail}, status, headers)


async def _no_such_page(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return _answer(error.status_code, "no such page", error.detail, error.headers)


async def _bug(_: Request, error: Exception) -> Response:
    # Not the address, which may hold the secret.
    logger.error("A request failed", exc_info=error)
    return _answer(500, "failed", "The receiver failed; its log has the error.")
