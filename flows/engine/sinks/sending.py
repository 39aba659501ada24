"""Post documents to the Prefect API in batches, and tell what it will never take from a server that is away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import orjson

if TYPE_CHECKING:
    import httpx
    from prefect.client.orchestration import SyncPrefectClient

EVENTS, LINES = "/events", "/logs/"
# The server refuses bodies of several megabytes; a node's event is about 2 kB.
BATCH_SIZE = 200
# After so many documents in a row, each refused by itself, it is not the documents.
_IN_VAIN = 10
# Answers about a body: not readable, too large, not valid. A smaller body helps against nothing else.
_ABOUT_THE_BODY = (400, 413, 422)
# Client errors that pass by themselves: a time-out, and too many requests.
_PASSING = (408, 429)
_NOT_FOUND = 404


class EventRefused(Exception):
    """The server was there and will never take this body, however often it is sent."""


class Denied(Exception):
    """The server answered and refuses everything, as with a wrong key."""


class Sender(Protocol):
    """Post one body to the Prefect API; raise `EventRefused` for what is in it, `Denied` for who sends it."""

    def __call__(self, path: str, body: bytes) -> None: ...


class BatchSender:
    """Sends documents in batches, and finds those that the server will never take.

    Attributes:
        refused: how many these were.
    """

    def __init__(self) -> None:
        self.refused = 0
        self._in_vain = 0

    def send(self, sender: Sender, path: str, documents: list[dict[str, Any]], count: int | None = None) -> None:
        """Send documents, and take each from the list as soon as nothing more is to be done about it, not earlier.

        Args:
            count: how many of them, from the first; all when None.

        Raises:
            Denied: the server takes none of them.
            Exception: what the sender raised; what is still in the list was not sent.
        """
        size = BATCH_SIZE
        left = len(documents) if count is None else min(count, len(documents))
        while left:
            size = min(size, left)
            try:
                sender(path, orjson.dumps(documents[:size]))
                self._in_vain = 0
            except EventRefused as exc:
                # Something in the batch will never be taken: it is looked for, so that it alone is lost.
                size //= 2
                if size:
                    continue
                self._in_vain += 1
                if self._in_vain > _IN_VAIN:
                    raise Denied(f"it takes none of them ({exc})") from exc
                self.refused += 1
                size = 1
            del documents[:size]
            left -= size
            size = BATCH_SIZE if size == 1 else size


class EventsApi:
    """The Prefect API that the settings in force name; its client is made when something is sent."""

    def __init__(self) -> None:
        self._client: SyncPrefectClient | None = None

    def sender(self) -> Sender:
        """Return a sender through a new client."""
        from prefect.client.orchestration import get_client

        self._client = client = get_client(sync_client=True)
        client.__enter__()
        return sender_of(client)

    def has_recorded(self, event: Mapping[str, Any]) -> bool:
        """Say whether the server has made of an event what it makes of it: the state of a task run.

        It acknowledges events when it has them, and works them off in their order afterwards.
        """
        import httpx

        if self._client is None:
            return True
        task_run = event["resource"]["prefect.resource.id"].rpartition(".")[2]
        try:
            answer = self._client.request("GET", "/task_runs/{id}", path_params={"id": task_run})
            answer.raise_for_status()
        except httpx.HTTPStatusError as exc:
            # Whatever else is wrong shows when something is sent.
            return exc.response.status_code != _NOT_FOUND
        except httpx.HTTPError:
            return True
        state: dict[str, Any] = answer.json().get("state") or {}
        # Or a later one of the same node.
        return bool(state) and datetime.fromisoformat(state["timestamp"]) >= datetime.fromisoformat(event["occurred"])


def sender_of(client: SyncPrefectClient) -> Sender:
    """Return a sender through a client of Prefect that is open."""

    def post(path: str, body: bytes) -> httpx.Response:
        return client.request(
            "POST",
            path,  # type: ignore[arg-type]  # a Literal of the routes Prefect's own client uses
            content=body,
            headers={"content-type": "application/json"},
        )

    return sender_through(post)


def sender_through(post: Callable[[str, bytes], httpx.Response]) -> Sender:
    """Return a sender that tells a body that is refused for good from a server that is away."""
    import httpx

    def send(path: str, body: bytes) -> None:
        try:
            post(path, body).raise_for_status()
        except httpx.HTTPStatusError as exc:
            status = exc.response.status_code
            if status in _ABOUT_THE_BODY:
                raise EventRefused(f"HTTP {status}") from exc
            if exc.response.is_client_error and status not in _PASSING:
                what = "the credentials" if status in (401, 403) else "the request"
                raise Denied(f"it refuses {what} (HTTP {status})") from exc
            raise

    return send
