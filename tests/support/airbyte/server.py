"""A stand-in for Airbyte on this machine: its public API and the one call of its Config API, over real HTTP.

It answers in the shapes of the published description (description.json) and refuses requests that the description
does not allow, so that a client which gets along with it speaks Airbyte's language. What the description leaves open
is as in Airbyte's own server (airbyte-platform 310e6cb): times without seconds when these are zero, links to the next
page without the filters of the first, jobs in order of creation unless asked otherwise, 409 as a problem document.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import RLock
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

from tests.support.airbyte.description import Description
from tests.support.served import served

PUBLIC = "/api/public/v1"
CLOUD = "/v1"
CONFIG = "/api/v1"
ENDED = ("failed", "succeeded", "cancelled")
WORKSPACE = "7d6f2b5e-3c7a-4b43-9a1c-2f0e6a9d4c11"


@dataclass
class Job:
    """One job as the stand-in keeps it.

    Attributes:
        ahead: the statuses it goes through, one each time somebody asks for it.
        reason: why the last attempt failed, as the Config API says.
    """

    job_id: int
    connection_id: str
    status: str
    job_type: str
    created_at: datetime
    updated_at: datetime
    rows: int = 0
    ahead: deque[str] = field(default_factory=deque[str])
    reason: str | None = None


@dataclass
class Connection:
    """One connection as the stand-in keeps it."""

    connection_id: str
    name: str
    schedule: dict[str, str]
    status: str = "active"


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    operation: str
    query: dict[str, str]
    body: Any


class AirbyteServer:
    """Hold what the stand-in knows; tests change it while clients ask.

    Attributes:
        latency_seconds: how long every answer takes.
        sign_in: client id and secret; nobody has to sign in when None.
        token_seconds: how long a token is good for.
        has_config_api: whether the Config API answers, which it does on self-managed servers only.
        requests: what was asked for, tokens included, oldest first.
        mistakes: what was wrong with requests or with answers; a test that leaves some here is broken.
    """

    def __init__(self, address: str) -> None:
        self.root = address
        self.api_url = f"{address}{PUBLIC}"
        self.cloud_url = f"{address}{CLOUD}"
        self.connections: dict[str, Connection] = {}
        self.jobs: dict[int, Job] = {}
        self.latency_seconds = 0.0
        self.sign_in: tuple[str, str] | None = None
        self.token_seconds = 900
        self.has_config_api = True
        self.requests: list[Request] = []
        self.mistakes: list[str] = []
        self._lock = RLock()
        self._faults: deque[int | str] = deque()
        self._tokens: set[str] = set()
        self._description = Description()

    def add_connection(
        self, connection_id: str | None = None, name: str = "Google Ads", schedule: dict[str, str] | None = None
    ) -> str:
        """Add a connection and return its id."""
        connection_id = connection_id or str(uuid4())
        self.connections[connection_id] = Connection(connection_id, name, schedule or {"scheduleType": "manual"})
        return connection_id

    def add_job(
        self,
        connection_id: str,
        status: str = "succeeded",
        *ahead: str,
        job_type: str = "sync",
        ended_at: datetime | None = None,
        reason: str | None = None,
    ) -> int:
        """Add a job and return its number.

        Args:
            ahead: the statuses it goes through afterwards, one each time somebody asks for it.
            ended_at: its last update; now when None.
        """
        with self._lock:
            updated_at = ended_at or datetime.now(UTC)
            job_id = max(self.jobs, default=40) + 1
            created_at = updated_at - timedelta(minutes=5)
            self.jobs[job_id] = Job(
                job_id, connection_id, status, job_type, created_at, updated_at, 120, deque(ahead), reason
            )
            return job_id

    def finish(self, job_id: int, status: str = "succeeded", reason: str | None = None) -> None:
        """Bring a job to an end."""
        with self._lock:
            job = self.jobs[job_id]
            job.status, job.updated_at, job.reason = status, datetime.now(UTC), reason
            job.ahead.clear()

    def fail_next(self, *faults: int | str) -> None:
        """Answer the next requests with these statuses; "drop" closes the connection without an answer."""
        self._faults.extend(faults)

    def forget_tokens(self) -> None:
        """Make every token that was given out worthless."""
        self._tokens.clear()

    def asked(self, operation: str) -> list[Request]:
        """Return the requests for an operation, such as "GET /jobs"."""
        return [request for request in self.requests if request.operation == operation]

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, Any] | None:
        """Return status and document for a request; None for a connection that breaks."""
        time.sleep(self.latency_seconds)
        with self._lock:
            if self._faults:
                fault = self._faults.popleft()
                return None if isinstance(fault, str) else _problem(fault, "fault-injected", "Injected by the test.")
            url = urlsplit(target)
            operation, arguments, reply = self._route(method, url.path)
            if reply is None:
                return _problem(404, "resource-not-found", f"There is no {method} {url.path}.")
            query = dict(parse_qsl(url.query))
            document = json.loads(body) if body else None
            self.requests.append(Request(operation, query, document))
            wrong = self._description.request_errors(operation, query, document)
            if wrong:
                self.mistakes += wrong
                return _problem(400, "bad-request", "; ".join(wrong))
            if operation not in ("GET /health", "POST /public/v1/applications/token") and not self._is_known(headers):
                return _problem(401, "invalid-api-key", "The token is not valid.")
            status, answered = reply(*arguments, query, document)
            self.mistakes += self._description.answer_errors(operation, status, answered)
            return status, answered

    def _is_known(self, headers: Any) -> bool:
        return self.sign_in is None or str(headers.get("Authorization", "")).removeprefix("Bearer ") in self._tokens

    def _route(self, method: str, path: str) -> tuple[str, list[str], Callable[..., tuple[int, Any]] | None]:
        if path == f"{CONFIG}/jobs/get_without_logs":
            found = self._failure if self.has_config_api and method == "POST" else None
            return "POST /v1/jobs/get_without_logs", [], found
        base = next((prefix for prefix in (PUBLIC, CLOUD) if path.startswith(f"{prefix}/")), None)
        parts = path.removeprefix(base or "").strip("/").split("/") if base else []
        if parts == ["applications", "token"]:
            return "POST /public/v1/applications/token", [], self._token if method == "POST" else None
        match [method, *parts]:
            case ["GET", "health"]:
                return "GET /health", [], lambda *_: (200, {"available": True})
            case ["GET", "jobs"]:
                return "GET /jobs", [], self._list_jobs
            case ["POST", "jobs"]:
                return "POST /jobs", [], self._start_job
            case ["GET" | "DELETE", "jobs", job_id]:
                return f"{method} /jobs/{{jobId}}", [job_id], self._job if method == "GET" else self._cancel_job
            case ["GET", "connections"]:
                return "GET /connections", [], self._list_connections
            case ["GET", "connections", connection_id]:
                return "GET /connections/{connectionId}", [connection_id], self._connection
            case _:
                return "", [], None

    def _token(self, _: dict[str, str], body: dict[str, str]) -> tuple[int, Any]:
        if self.sign_in != (body["client_id"], body["client_secret"]):
            return _problem(401, "invalid-api-key", "The client is not known.")
        token = uuid4().hex
        self._tokens.add(token)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.token_seconds}

    def _list_jobs(self, query: dict[str, str], _: Any) -> tuple[int, Any]:
        found = [
            job
            for job in self.jobs.values()
            if query.get("connectionId", job.connection_id) == job.connection_id
            and query.get("jobType", job.job_type) == job.job_type
            and query.get("status", job.status) == job.status
            and job.updated_at >= datetime.fromisoformat(query.get("updatedAtStart", "2000-01-01T00:00Z"))
        ]
        order, _, direction = query.get("orderBy", "createdAt|ASC").partition("|")
        found.sort(key=lambda job: (getattr(job, _ORDERS[order]), job.job_id), reverse=direction == "DESC")
        page = self._page(found, query, "jobs")
        for job in page["data"]:
            self._go_on(job)
        return 200, page | {"data": [_job_document(job) for job in page["data"]]}

    def _start_job(self, _: dict[str, str], body: dict[str, str]) -> tuple[int, Any]:
        connection_id = body["connectionId"]
        if connection_id not in self.connections:
            return _problem(404, "resource-not-found", "The connection is not known.")
        if body["jobType"] == "refresh":
            return _problem(422, "unprocessable-entity", "Not by this API.")
        if any(job.connection_id == connection_id and job.status not in ENDED for job in self.jobs.values()):
            return _problem(409, "try-again-later", "A sync is already running.")
        job_id = self.add_job(connection_id, "pending", "running", "succeeded", job_type=body["jobType"])
        return 200, _job_document(self.jobs[job_id])

    def _job(self, job_id: str, *_: Any) -> tuple[int, Any]:
        job = self.jobs.get(int(job_id))
        if job is None:
            return _problem(404, "resource-not-found", "The job is not known.")
        self._go_on(job)
        return 200, _job_document(job)

    def _cancel_job(self, job_id: str, *_: Any) -> tuple[int, Any]:
        job = self.jobs.get(int(job_id))
        if job is None or job.status in ENDED:
            return _problem(409, "state-conflict", "The job is not running.")
        self.finish(job.job_id, "cancelled")
        return 200, _job_document(job)

    def _list_connections(self, query: dict[str, str], _: Any) -> tuple[int, Any]:
        page = self._page(list(self.connections.values()), query, "connections")
        return 200, page | {"data": [_connection_document(connection) for connection in page["data"]]}

    def _connection(self, connection_id: str, *_: Any) -> tuple[int, Any]:
        connection = self.connections.get(connection_id)
        if connection is None:
            return _problem(404, "resource-not-found", "The connection is not known.")
        return 200, _connection_document(connection)

    def _failure(self, _: dict[str, str], body: dict[str, int]) -> tuple[int, Any]:
        job = self.jobs.get(body["id"])
        if job is None:
            return 404, {"message": "Could not find job.", "exceptionClassName": "x", "exceptionStack": []}
        created, updated = int(job.created_at.timestamp()), int(job.updated_at.timestamp())
        attempt: dict[str, Any] = {"id": 0, "status": "running", "createdAt": created, "updatedAt": updated}
        if job.status in ENDED:
            attempt["status"] = "succeeded" if job.status == "succeeded" else "failed"
        if job.reason:
            failure = {"failureOrigin": "source", "failureType": "config_error", "externalMessage": job.reason}
            attempt["failureSummary"] = {"failures": [{**failure, "timestamp": updated * 1000}]}
        read = {"id": job.job_id, "configType": job.job_type, "configId": job.connection_id, "status": job.status}
        return 200, {"job": read | {"createdAt": created, "updatedAt": updated}, "attempts": [{"attempt": attempt}]}

    def _go_on(self, job: Job) -> None:
        if job.ahead:
            job.status = job.ahead.popleft()
            job.updated_at = datetime.now(UTC)

    def _page(self, found: list[Any], query: dict[str, str], what: str) -> dict[str, Any]:
        limit, offset = int(query.get("limit", "20")), int(query.get("offset", "0"))
        data = found[offset : offset + limit]
        after = f"{self.root}/v1/{what}?limit={limit}&offset={offset + limit}" if data else ""
        before = f"{self.root}/v1/{what}?limit={limit}&offset={max(0, offset - limit)}" if offset else ""
        return {"previous": before, "next": after, "data": data}


_ORDERS = {"createdAt": "created_at", "updatedAt": "updated_at"}


def _job_document(job: Job) -> dict[str, Any]:
    document: dict[str, Any] = {
        "jobId": job.job_id,
        "status": job.status,
        "jobType": job.job_type,
        "startTime": java_time(job.created_at),
        "connectionId": job.connection_id,
    }
    if job.status in ENDED:
        document["lastUpdatedAt"] = java_time(job.updated_at)
    if job.status != "pending":
        document["duration"] = f"PT{int((job.updated_at - job.created_at).total_seconds())}S"
    if job.status == "succeeded":
        document |= {"bytesSynced": job.rows * 64, "rowsSynced": job.rows}
    return document


def _connection_document(connection: Connection) -> dict[str, Any]:
    return {
        "connectionId": connection.connection_id,
        "name": connection.name,
        "sourceId": "c0c1b7f5-5f0e-4f0f-8f5b-0d4f0a3a1b22",
        "destinationId": "5b1c5a1d-9d57-4b8b-8f6e-6a0a7a1c2d33",
        "workspaceId": WORKSPACE,
        "status": connection.status,
        "schedule": connection.schedule,
        "configurations": {"streams": []},
        "createdAt": 1_760_000_000,
        "tags": [],
    }


def java_time(at: datetime) -> str:
    """Return a time as Java writes it, which leaves out what is zero."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ" if at.second else "%Y-%m-%dT%H:%MZ")


def _problem(status: int, title: str, detail: str) -> tuple[int, Any]:
    return status, {"status": status, "type": f"error:{title}", "title": title, "detail": detail}


@contextmanager
def airbyte_running() -> Iterator[AirbyteServer]:
    """Serve on a free port of this machine for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Otherwise the second write of an answer waits for the first to be acknowledged.
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answered = stand_in.answer(self.command, self.path, self.headers, body)
            if answered is None:
                self.close_connection = True
                return
            status, document = answered
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _handle

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in = AirbyteServer(f"http://127.0.0.1:{server.server_address[1]}")
    with served(server):
        yield stand_in
