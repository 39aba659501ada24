"""A local HTTP server that answers as Slack and PagerDuty do, with faults on request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from tests.support.served import served


@dataclass(frozen=True)
class Answer:
    """How to answer one request.

    Attributes:
        status: "drop" closes the connection without an answer, "hang" keeps it open and says nothing.
    """

    status: int | str = 200
    text: str = "ok"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Receiver:
    """What came in, and how the next requests are answered; 200 when nothing else is said."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    always: Answer = field(default_factory=Answer)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def slack_url(self) -> str:
        """Return an address in the form of an incoming webhook's."""
        return f"{self.url}/services/T000/B000/very-secret-part"

    @property
    def events_url(self) -> str:
        """Return an address in the form of PagerDuty's."""
        return f"{self.url}/v2/enqueue"

    def taken(self) -> list[dict[str, Any]]:
        """Return the documents that were answered with success, in the order in which they came."""
        return list(self.bodies)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run such a server on a free port for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.paths.append(self.path)
            answer = found.answers.pop(0) if found.answers else found.always
            if answer.status == "hang":
                found.is_over.wait()
                return
            if answer.status == "drop":
                self.connection.close()
                return
            problem = slack_problem(body) if self.path.startswith("/services/") else pagerduty_problem(body)
            if answer.status == 200 and problem:
                answer = Answer(400, problem)
            if answer.status == 200:
                found.bodies.append(body)
                if not self.path.startswith("/services/"):
                    document = {"status": "success", "message": "Event processed", "dedup_key": body["dedup_key"]}
                    answer = Answer(202, orjson.dumps(document).decode())
            self.send_response(int(answer.status))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.text.encode())))
            self.end_headers()
            self.wfile.write(answer.text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Receiver(f"http://127.0.0.1:{server.server_address[1]}")
    with served(server):
        try:
            yield found
        finally:
            found.is_over.set()


def slack_problem(body: dict[str, Any]) -> str | None:
    """Return the error that Slack answers with, by its documented limits; None where it takes the message."""
    if not body.get("text"):
        return "no_text"
    blocks = body.get("blocks", [])
    if len(blocks) > 50:
        return "invalid_blocks"
    for block in blocks:
        limit = {"header": 150, "section": 3000}.get(block["type"])
        if limit and not 0 < len(block["text"]["text"]) <= limit:
            return "invalid_blocks"
        for element in block.get("elements", []):
            if len(element.get("url", "")) > 3000 or len(element["text"]["text"]) > 75:
                return "invalid_blocks"
    total = sum(len(block["text"]["text"]) for block in blocks if "text" in block)
    return "msg_blocks_too_long" if total > 13_000 else None


def pagerduty_problem(body: dict[str, Any]) -> str | None:
    """Return the error that PagerDuty answers with; None where it takes the event."""
    if len(body.get("routing_key", "")) != 32 or not 0 < len(body.get("dedup_key", "")) <= 255:
        return '{"status":"invalid event"}'
    if body["event_action"] == "resolve":
        return None
    payload = body["payload"]
    is_whole = 0 < len(payload["summary"]) <= 1024 and payload["source"]
    is_known = payload["severity"] in ("critical", "error", "warning", "info")
    return None if is_whole and is_known and body["event_action"] == "trigger" else '{"status":"invalid event"}'


# As long as PagerDuty's keys are.
ROUTING_KEY = "r" * 32


WriteRoutes = Callable[..., None]


def headers(found: Receiver) -> list[str]:
    """Return the headlines of the messages that came in."""
    return [body["blocks"][0]["text"]["text"] for body in found.bodies]
