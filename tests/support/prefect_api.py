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
    """Return the Prefect server's answer to a request, once it has one that is not an error."""
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        answers.append(client().request(method, address, **options))
        # A server whose database is locked for a moment, on a busy machine.
        return answers[-1].status_code != 503

    wait_until(is_answered, "the Prefect server answers")
    answers[-1].raise_for_status()
    return answers[-1]


def post(api: str, path: str, body: dict[str, Any]) -> Any:
    """Return what a Prefect server answers to a request, once it does."""
    return ask("POST", f"{api}{path}", json=body).json()


def delete_block(api: str, type_slug: str, name: str) -> None:
    """Delete a block as a person does in the UI."""
    found = ask("GET", f"{api}/block_types/slug/{type_slug}/block_documents/name/{name}").json()
    ask("DELETE", f"{api}/block_documents/{found['id']}")
