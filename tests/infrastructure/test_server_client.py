"""Whose failure it is when something fails while the Prefect server is open."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.server.client import connect


@pytest.fixture
def page() -> Iterator[str]:
    """Return the address of a server that answers everything with a page for people."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@contextmanager
def answering(version: str, asked: list[str]) -> Iterator[str]:
    """Be a server of Prefect that says its version, and knows nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(version).encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def fail_with(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused", request=httpx.Request("GET", "https://hooks.slack.test")),
        httpx.ReadTimeout("too slow"),
        httpx.InvalidURL("no host"),
        httpx.HTTPStatusError(
            "",
            request=httpx.Request("GET", "https://airbyte.test"),
            response=httpx.Response(401, request=httpx.Request("GET", "https://airbyte.test")),
        ),
        json.JSONDecodeError("not JSON", "", 0),
    ],
)
def test_what_somebody_else_fails_with_is_not_the_servers(prefect_server: str, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, connect():
        fail_with(error)
    assert caught.value is error


def test_a_page_for_people_is_not_the_api_of_a_server(page: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: f"{page}/api"}),
        pytest.raises(ConfigError, match=f"{page}/api is not the API of a Prefect server"),
        connect() as server,
    ):
        server.read_limit("dbt-dev")


@pytest.mark.parametrize(
    ("version", "is_enough"), [("3.4.0", False), ("3.4.25", False), ("3.5.0", True), ("4.0.0.dev1", True)]
)
def test_a_server_that_is_too_old_is_said_before_anything_is_done(version: str, is_enough: bool) -> None:
    asked: list[str] = []
    with answering(version, asked) as address, temporary_settings({PREFECT_API_URL: f"{address}/api"}):
        if is_enough:
            with connect():
                pass
            with connect():
                pass
            assert asked == ["/api/admin/version"], "once in a process"
            return
        said = rf"server at {address}/api is too old: it is version {version}, and .* 3\.5 or newer is needed, best"
        with pytest.raises(ConfigError, match=said), connect():
            raise AssertionError("it got as far as doing something")


@pytest.mark.parametrize("address", ["127.0.0.1:4200/api", "ftp://prefect/api", "http://"])
def test_an_address_that_is_none_is_told_of_before_anything_is_asked(address: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(ConfigError, match="PREFECT_API_URL ends in /api"),
        connect(),
    ):
        pass


def test_a_server_that_goes_away_in_the_block_is_named(page: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(UpstreamUnavailable, match=r"http://127\.0\.0\.1:9/api does not answer"),
        connect() as server,
    ):
        server.read_limit("dbt-dev")
