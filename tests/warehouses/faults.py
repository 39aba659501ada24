"""A line between dbt and a warehouse on which things go wrong: refusals, breakdowns, lost connections."""

from __future__ import annotations

import gzip
import http.client
import http.server
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Fault:
    """What becomes of one statement.

    Attributes:
        status: of HTTP; None for a connection that is cut when the warehouse has done its work.
        body: of the answer, in JSON.
        times: how often, before the line is good again.
    """

    status: int | None = None
    body: Mapping[str, Any] | None = None
    times: int = 1


def _google(status: int, reason: str, message: str) -> Fault:
    error = {"code": status, "message": message, "errors": [{"reason": reason, "message": message, "domain": "global"}]}
    return Fault(status, {"error": error})


def _failed_job(reason: str, message: str) -> Fault:
    """Return a job that was taken on and has failed since."""
    error = {"reason": reason, "message": message}
    return Fault(200, {"status": {"state": "DONE", "errorResult": error, "errors": [error]}})


def _snowflake(code: str, message: str, sql_state: str = "XX000") -> Fault:
    data = {"errorCode": code, "sqlState": sql_state, "queryId": "01b2c3d4-0000-0000-0000-000000000000"}
    return Fault(200, {"data": data, "code": code, "message": message, "success": False})


# In the services' own words; each for the statements of a model of its own.
FAULTS: dict[str, dict[str, Fault]] = {
    "snowflake": {
        "too many requests (429)": Fault(429, {}),
        "service unavailable (503)": Fault(503, {}),
        "connection cut": Fault(),
        "internal error": _snowflake(
            "000603", "SQL execution internal error:\nProcessing aborted by error 300010:391167117; incident 4711815."
        ),
        "lock held too long": _snowflake(
            "000625", "Statement '01b' has locked table 'T' in transaction 17 and this lock has not yet been released."
        ),
        "session gone": _snowflake("390111", "Session no longer exists. New login required to access the service."),
    },
    "bigquery": {
        "rate limit exceeded (403)": _google(
            403, "rateLimitExceeded", "Exceeded rate limits: too many table update operations for this table."
        ),
        "service unavailable (503)": _google(503, "backendError", "Visibility check was unavailable."),
        "connection cut": Fault(),
        "internal error (500)": _google(
            500, "internalError", "An internal error occurred and the request could not be completed."
        ),
        "backend error of a job": _failed_job(
            "backendError", "Error encountered during execution. Retrying may solve the problem."
        ),
        "rate limit of a job": _failed_job(
            "jobRateLimitExceeded", "Job exceeded rate limits: Your project exceeded quota for concurrent queries."
        ),
    },
}
# Models that stand on raw tables alone, so that what becomes of one is no matter to the next.
MODELS = (
    "stg_google_ads__campaigns",
    "stg_facebook_ads__campaigns",
    "stg_facebook_ads__insights",
    "br_supabase_musician",
    "br_supabase_concert",
    "br_supabase_contract",
)


class FaultyLine:
    """An HTTP proxy in front of a warehouse.

    Attributes:
        faults: what befalls the statements of each model, by its name.
        everything: what befalls every request.
        hits: how often each model's fault came about.
    """

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self.faults: dict[str, Fault] = {}
        self.everything: Fault | None = None
        self.hits: Counter[str] = Counter()
        self._lock = threading.Lock()

    def fault_of(self, body: bytes) -> Fault | None:
        """Return what befalls a request, and count it."""
        if self.everything:
            return self.everything
        text = (gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body).decode(errors="replace")
        with self._lock:
            for model, fault in self.faults.items():
                # As the comment on every statement has it, inside JSON; what is only looked up names no node.
                if f'node_id\\": \\"model.tributary.{model}\\"' in text and self.hits[model] < fault.times:
                    self.hits[model] += 1
                    return fault
        return None

    def forward(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> tuple[int, Any, bytes]:
        """Hand a request on, and return status, headers and body of the answer."""
        connection = http.client.HTTPConnection(*self._to, timeout=600)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


@contextmanager
def faulty_line(output: dict[str, Any]) -> Iterator[tuple[dict[str, Any], FaultyLine]]:
    """Put a line between dbt and its warehouse; yields the output that leads there, and the line."""
    is_snowflake = output["type"] == "snowflake"
    port = output["port"] if is_snowflake else urlsplit(output["api_endpoint"]).port
    line = FaultyLine("127.0.0.1", port)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = line.fault_of(body)
            if fault is None or fault.status is None:
                status, headers, answer = line.forward(self.command, self.path, self.headers.items(), body)
                if fault is not None:
                    self.close_connection = True
                    with suppress(OSError):
                        self.connection.shutdown(socket.SHUT_RDWR)
                    return
            else:
                status, headers, answer = fault.status, [("Content-Type", "application/json")], self._said(fault, body)
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _said(self, fault: Fault, body: bytes) -> bytes:
            document = dict(fault.body or {})
            if "status" in document:
                document |= {key: value for key, value in json.loads(body).items() if key != "status"}
            return json.dumps(document).encode()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here: dict[str, Any] = {"port": server.server_port}
        if not is_snowflake:
            here = {"api_endpoint": f"http://127.0.0.1:{server.server_port}"}
        yield output | here, line
        server.shutdown()
