"""What tests ask of a Prefect server beside Tributary."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import httpx

from tests.support.processes import wait_until

# What the fixture `set_up_target` returns: settings and secrets in, the target's name out.
SetUpTarget = Callable[..., str]


@cache
def client() -> httpx.Client:
    """Return the client of this process, which no proxy stands before: to make one takes 30 ms of a processor."""
    # A connection that is kept may be one that a server has closed since.
    return httpx.Client(trust_env=False, timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


def ask(method: str, address: str, **options: Any) -> httpx.Response:
    """Return the Prefect server's answer to a request, once it has one; an error of another kind is raised.

    Every request of a test to a server goes through here, so that none fails because the server is busy.
    """
    return _answer(method, address, **options).raise_for_status()


def look(address: str) -> Any:
    """Return what is at an address, or None where nothing is."""
    answer = _answer("GET", address)
    return None if answer.status_code == httpx.codes.NOT_FOUND else answer.raise_for_status().json()


def _answer(method: str, address: str, **options: Any) -> httpx.Response:
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        answers.append(client().request(method, address, **options))
        # With it, a server says that its database is locked for a moment, on a busy machine: nothing was done.
        return answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

    wait_until(is_answered, "the Prefect server answers")
    return answers[-1]


def post(api: str, path: str, body: Any) -> Any:
    """Return what a Prefect server answers to a request, once it does."""
    return ask("POST", f"{api}{path}", json=body).json()


def delete_block(api: str, type_slug: str, name: str) -> None:
    """Delete a block as a person does in the UI."""
    found = ask("GET", f"{api}/block_types/slug/{type_slug}/block_documents/name/{name}").json()
    ask("DELETE", f"{api}/block_documents/{found['id']}")
