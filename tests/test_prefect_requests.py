"""Requests of tests to a Prefect server: they are made in one place, which asks a busy server again."""

from __future__ import annotations

import ast

import httpx
import pytest

from infrastructure.workspace import ROOT
from tests.support import prefect_api

# Tests that make a client of their own, and what they ask with it.
OWN_CLIENTS = {
    "tests/flows/engine/sinks/test_recorder.py": "a server of the test's own",
    "tests/support/airbyte/test_server.py": "the Airbyte of the tests",
    "tests/test_prefect_requests.py": "nothing",
}
_ASKS = {"get", "post", "put", "patch", "delete", "request", "Client"}


def test_a_server_whose_database_is_locked_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's SQLite server answers 503 now and then: tests failed of it that had nothing to do with it."""
    answers = iter((503, 503, 200, 503, 404, 503, 409))

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(answers), json={"path": request.url.path})

    server = httpx.Client(transport=httpx.MockTransport(answer))
    monkeypatch.setattr(prefect_api, "client", lambda: server)
    assert prefect_api.post("http://prefect/api", "/flows/", {}) == {"path": "/api/flows/"}
    assert prefect_api.look("http://prefect/api/flows/x") is None
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        prefect_api.ask("POST", "http://prefect/api/flows/")
    assert next(answers, None) is None


def test_no_test_asks_a_server_by_itself() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _ASKS
        if _is_httpx(node.func.value)
    }
    assert found == OWN_CLIENTS.keys(), "ask a Prefect server through tests.support.prefect_api: ask, post and look"


def _is_httpx(asked: ast.expr) -> bool:
    """Say whether it is the library, or the client that the tests share."""
    match asked:
        case ast.Name(id="httpx") | ast.Call(func=ast.Name(id="client")):
            return True
        case _:
            return False
