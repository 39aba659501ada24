"""Send what dbt does to the Prefect server, off the thread that reads dbt."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import orjson

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.results import NodeResult, result_of
from flows.engine.context.events import STARTED, DbtEvent, NodeEvent
from flows.engine.context.run_context import FlowRun
from flows.engine.sinks.task_runs import finished_event, interrupted_event, log_document, running_event
from flows.engine.sinks.unsent import UnsentEvents

if TYPE_CHECKING:
    import httpx
    from prefect.client.orchestration import SyncPrefectClient

# Often enough that a line is in the UI within two seconds, seldom enough that a thousand nodes cost a few requests.
FLUSH_SECONDS = 0.5
# A node that ends sooner than this needs no Running event of its own: its last event carries its start.
SHOWN_RUNNING_SECONDS = 1.0
# The server refuses bodies of several megabytes; a node's event is about 2 kB.
BATCH_SIZE = 200
# How long the end of a run waits for a server that is away or slow.
CLOSE_SECONDS = 30.0
# A server that refuses everything is tried less and less: a key may be renewed, a proxy mended.
_LONGEST_PAUSE_SECONDS = 60.0
# After so many documents in a row, each refused by itself, it is not the documents.
_IN_VAIN = 10
# Answers about a body: not readable, too large, not valid. A smaller body helps against nothing else.
_ABOUT_THE_BODY = (400, 413, 422)
# Client errors that pass by themselves: a time-out, and too many requests.
_PASSING = (408, 429)


class EventRefused(Exception):
    """The server was there and will never take this body, however often it is sent."""


class Denied(Exception):
    """The server answered and refuses everything, as with a wrong key."""


class Sender(Protocol):
    """Post one body to the Prefect API; raise `EventRefused` for what is in it, `Denied` for who sends it."""

    def __call__(self, path: str, body: bytes) -> None: ...


class Recorder:
    """Keep a queue of events and send it in batches; whatever can't be sent is counted, never raised.

    Args:
        sender_factory: makes the sender, in the recorder's own thread.
        artifacts: the manifest is read once, when the first node starts, for the edges between task runs.
        unsent: keeps the events that could not be sent for a later run, and has those of earlier ones.
    """

    def __init__(
        self,
        flow_run: FlowRun,
        sender_factory: Callable[[], Sender],
        artifacts: Artifacts,
        flush_seconds: float = FLUSH_SECONDS,
        unsent: UnsentEvents | None = None,
    ) -> None:
        self._flow_run = flow_run
        self._sender_factory = sender_factory
        self._artifacts = artifacts
        self._flush_seconds = flush_seconds
        self._waiting: deque[DbtEvent | NodeResult] = deque()
        self._events: list[dict[str, Any]] = []
        self._lines: list[dict[str, Any]] = []
        # Started and not ended yet; those not yet shown as running are in `_quiet` too.
        self._running: dict[str, NodeEvent] = {}
        self._quiet: dict[str, NodeEvent] = {}
        self._seen: set[str] = set()
        self._manifest: Manifest | None = None
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._refused = 0
        self._in_vain = 0
        self._kept = self._left_by_others = unsent
        self.unsent = 0
        # Whether dbt was told to end, so that what it leaves unfinished has not crashed.
        self.is_stopped = False
        # Why the server took none, where it said so.
        self.denied = ""
        # Prefect's settings in force, such as the server's address, belong to the context that makes the recorder.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._work,), name="tributary-recorder", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            # It waits for an answer that may never come; what it had no time for is made ready in its place.
            self._prepare()
            self._end_the_rest()
        if self._kept and self._events:
            self._kept.keep(list(self._events))
        self.unsent = self._refused + len(self._waiting) + len(self._events) + len(self._lines)

    def event(self, event: DbtEvent) -> None:
        """Take a line of dbt; returns at once."""
        self._waiting.append(event)

    def results(self, results: Iterable[NodeResult]) -> None:
        """Take what is known only at the end, such as error messages, for the nodes' task runs."""
        self._waiting.extend(results)

    def _work(self) -> None:
        sender: Sender | None = None
        deadline = 0.0
        pause = self._flush_seconds
        while True:
            is_last = self._closing.is_set()
            if is_last and not deadline:
                deadline = time.monotonic() + CLOSE_SECONDS
            self._prepare()
            if is_last:
                self._end_the_rest()
            try:
                sender = sender or self._sender_factory()
                self._flush(sender)
                self._send_kept(sender)
                self.denied, pause = "", self._flush_seconds
            except Denied as exc:
                self.denied, pause = str(exc), min(2 * pause, _LONGEST_PAUSE_SECONDS)
                if is_last:
                    return
            except Exception:  # noqa: BLE001  (whatever it is, dbt goes on and the ledger has it all)
                sender, pause = None, self._flush_seconds
                if is_last and time.monotonic() >= deadline:
                    return
            if is_last and not (self._events or self._lines or self._waiting):
                return
            self._wake.wait(pause)
            if is_last:
                time.sleep(self._flush_seconds / 5)

    def _send_kept(self, sender: Sender) -> None:
        """Send what earlier runs could not, once, when this one has a server that answers."""
        if self._left_by_others:
            with contextlib.suppress(EventRefused):  # It will never take them.
                self._left_by_others.send(sender)
            self._left_by_others = None

    def _prepare(self) -> None:
        while self._waiting:
            try:
                self._take(self._waiting.popleft())
            except Exception:  # noqa: BLE001  (one odd event must not keep all others from the server)
                self._refused += 1
        now = time.time()
        for node in list(self._quiet.values()):
            if now - node.started_at.timestamp() >= SHOWN_RUNNING_SECONDS:
                self._events.append(running_event(self._flow_run, node, self._parents(node.unique_id)))
                del self._quiet[node.unique_id]

    def _take(self, item: DbtEvent | NodeResult) -> None:
        if isinstance(item, NodeResult):
            self._events.append(finished_event(self._flow_run, item, self._parents(item.unique_id)))
            return
        if item.text.strip():
            self._lines.append(log_document(self._flow_run, item))
        if item.node is not None:
            self._node(item.node)

    def _end_the_rest(self) -> None:
        """Show nodes that were cut off in their work as such: dbt is gone, and they must not look running for ever."""
        for node in self._running.values():
            parents = self._parents(node.unique_id)
            self._events.append(interrupted_event(self._flow_run, node, parents, self.is_stopped))
        self._running.clear()
        self._quiet.clear()

    def _node(self, node: NodeEvent) -> None:
        self._seen.add(node.unique_id)
        if node.status == STARTED:
            self._running[node.unique_id] = self._quiet[node.unique_id] = node
            return
        self._running.pop(node.unique_id, None)
        self._quiet.pop(node.unique_id, None)
        result = result_of(node)
        self._events.append(finished_event(self._flow_run, result, self._parents(node.unique_id)))

    def _parents(self, unique_id: str) -> list[str]:
        if self._manifest is None:
            # dbt writes it when it has parsed, so it is there before the first node starts.
            self._manifest = self._artifacts.manifest_if_any
        return self._manifest.parents(unique_id, self._seen)

    def _flush(self, sender: Sender) -> None:
        for path, documents in (("/events", self._events), ("/logs/", self._lines)):
            size = BATCH_SIZE
            while documents:
                try:
                    sender(path, orjson.dumps(documents[:size]))
                    self._in_vain = 0
                except EventRefused as exc:
                    # Something in the batch will never be taken: it is looked for, so that it alone is lost.
                    size = min(size, len(documents)) // 2
                    if size:
                        continue
                    self._in_vain += 1
                    if self._in_vain > _IN_VAIN:
                        raise Denied(f"it takes none of them ({exc})") from exc
                    self._refused += 1
                    size = 1
                del documents[:size]
                size = BATCH_SIZE if size == 1 else size


def prefect_sender() -> Sender:
    """Return a sender to the Prefect API that the settings in force name."""
    from prefect.client.orchestration import get_client

    client = get_client(sync_client=True)
    client.__enter__()
    return sender_of(client)


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
