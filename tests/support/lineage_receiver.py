"""A local server that speaks OpenLineage's `POST /api/v1/lineage`, as Marquez does, and is away on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from tests.support.served import served

PATH = "/api/v1/lineage"


@dataclass
class LineageReceiver:
    """What came in.

    Attributes:
        refusing: how many requests are answered with 503 before any is taken; -1 for all.
        refused: how many were.
    """

    url: str
    refusing: int = 0
    refused: int = 0
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def of(self, state: str) -> dict[str, dict[str, Any]]:
        """Return the events of a state by the last part of their job's name, which is the node's unique id."""
        named = {event["job"]["name"].split(".", 2)[-1]: event for event in self.events if event["eventType"] == state}
        assert len(named) == sum(event["eventType"] == state for event in self.events), "each of them came once"
        return named

    def keys(self) -> list[tuple[str, str]]:
        """Return what tells each event from all others: its run's id and its state."""
        return [(event["run"]["runId"], event["eventType"]) for event in self.events]


@contextmanager
def lineage_receiver() -> Iterator[LineageReceiver]:
    """Run such a server on a free port for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_away = found.refused < found.refusing or found.refusing < 0
            if is_away:
                found.refused += 1
            elif self.path == PATH:
                found.events.append(orjson.loads(body))
            self.send_response(503 if is_away else 201 if self.path == PATH else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = LineageReceiver(f"http://127.0.0.1:{server.server_address[1]}")
    with served(server):
        yield found
