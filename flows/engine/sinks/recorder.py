"""Send what dbt does to the Prefect server, off the thread that reads dbt."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.manifest import TEST_TYPES, Manifest
from flows.engine.artifacts.results import NodeResult, result_of
from flows.engine.context.events import STARTED, UNTOLD, DbtEvent, NodeEvent
from flows.engine.context.run_context import FlowRun
from flows.engine.sinks.assets import asset_events
from flows.engine.sinks.folders import Folders
from flows.engine.sinks.sending import BATCH_SIZE, EVENTS, LINES, BatchSender, Denied, Sender
from flows.engine.sinks.task_runs import (
    Position,
    finished_event,
    folder_event,
    interrupted_event,
    log_document,
    running_event,
)
from flows.engine.sinks.unsent import UnsentEvents
from infrastructure.server.away import is_server_away
from infrastructure.targets.settings import TaskRuns

# Often enough that a line is in the UI within two seconds, seldom enough that a thousand nodes cost a few requests.
FLUSH_SECONDS = 0.5
# How many of these pass before the first: dbt 2 is done by then with hundreds of nodes, and needs the processor itself.
_FLUSHES_BEFORE_THE_FIRST = 4
# How many events the server gets first. It spends about 11 ms of a processor on each, on SQLite, so that this many are
# worked off before the next flush; it gets more where that is so, and fewer where it is not.
_FIRST_BATCH = 25
# A server that has not worked its events off for so long does not record them at all: it is not waited for.
_WORKED_OFF_SECONDS = 10.0
# A node that ends sooner than this needs no Running event of its own: its last event carries its start.
SHOWN_RUNNING_SECONDS = 1.0
# How long the end of a run waits for a server that is away or slow.
CLOSE_SECONDS = 30.0
# And for one that the run has given up: what it does not take is sent by the next run.
_GIVEN_UP_SECONDS = 2.0
# A server that refuses everything is tried less and less: a key may be renewed, a proxy mended.
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class Sparing:
    """How a server that may share its processor with dbt is spared while dbt runs.

    Attributes:
        has_recorded: whether the server has worked off an event; no more are sent before it has. None to send at once.
        leaves_rest: leave what is not sent at the end of dbt with the unsent events, for what sends it after the
            flow's last state; see `last_state`.
    """

    has_recorded: Callable[[Mapping[str, Any]], bool] | None = None
    leaves_rest: bool = False


class Recorder:
    """Keep a queue of events and send it in batches; whatever can't be sent is counted, never raised.

    Args:
        sender_factory: makes the sender, in the recorder's own thread.
        artifacts: the manifest is read once, when the first node starts, for the edges between task runs.
        unsent: keeps the events that could not be sent for a later run, and has those of earlier ones.
        task_runs: which nodes have a task run of their own. What did not end well always has.
    """

    def __init__(
        self,
        flow_run: FlowRun,
        sender_factory: Callable[[], Sender],
        artifacts: Artifacts,
        flush_seconds: float = FLUSH_SECONDS,
        unsent: UnsentEvents | None = None,
        sparing: Sparing | None = None,
        task_runs: TaskRuns = "all",
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
        self._task_runs = task_runs
        # Those that have a task run, or will.
        self._shown: set[str] = set()
        # The tests of each node that have ended, and the nodes that were built.
        self._tests: dict[str, dict[str, NodeResult]] = {}
        self._built: dict[str, NodeResult] = {}
        self._assets: tuple[NodeResult, ...] = ()
        self._folders = Folders(self._path_of)
        self._manifest: Manifest | None = None
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._odd = 0
        self._delivery = BatchSender()
        sparing = sparing or Sparing()
        self._has_recorded = sparing.has_recorded
        self._leaves_rest = sparing.leaves_rest and unsent is not None
        # The last event that was sent and is not known to be worked off, and when that was.
        self._in_flight: tuple[Mapping[str, Any], float] | None = None
        self._batch = _FIRST_BATCH
        self._is_away = False
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
        # A process that is being stopped may have no time to come back to it.
        self._leaves_rest = self._leaves_rest and kind is None and not self.is_stopped
        self._closing.set()
        self._wake.set()
        self._thread.join(_patience_seconds())
        if self._thread.is_alive():
            # It waits for an answer that may never come; what it had no time for is made ready in its place.
            self._prepare()
            self._end_the_rest()
        if self._kept and self._events:
            self._kept.keep(list(self._events))
        self.unsent = self._odd + self._delivery.refused + len(self._waiting) + len(self._events) + len(self._lines)

    def event(self, event: DbtEvent) -> None:
        """Take a line of dbt; returns at once."""
        self._waiting.append(event)

    def results(self, results: Iterable[NodeResult]) -> None:
        """Take what is known only at the end, such as error messages, for the nodes' task runs."""
        self._waiting.extend(results)

    def built(self, results: Iterable[NodeResult]) -> None:
        """Take what came of a command that builds, with its tests, for the assets; they are sent last."""
        self._assets = tuple(results)

    def _work(self) -> None:
        sender: Sender | None = None
        deadline = 0.0
        pause = self._flush_seconds
        self._wake.wait(_FLUSHES_BEFORE_THE_FIRST * pause)
        while True:
            is_last = self._closing.is_set()
            if is_last and not deadline:
                deadline = time.monotonic() + _patience_seconds()
            self._prepare()
            if is_last:
                self._end_the_rest()
                # A server that did not answer a moment ago is asked now, so that the run can say what it did not take.
                is_left = self._leaves_rest and not self._is_away
                if is_left and self._kept and self._kept.keep(self._events, self._lines):
                    self._events, self._lines = [], []
                    return
            try:
                sender = sender or self._sender_factory()
                self._flush(sender, is_last)
                self._send_kept(sender)
                self.denied, self._is_away, pause = "", False, self._flush_seconds
            except Denied as exc:
                self._is_away = True
                self.denied, pause = str(exc), min(2 * pause, _LONGEST_PAUSE_SECONDS)
                if is_last:
                    return
            except Exception:  # noqa: BLE001  (whatever it is, dbt goes on and the ledger has it all)
                self._is_away, sender, pause = True, None, self._flush_seconds
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
            self._left_by_others.send(sender)
            self._left_by_others = None

    def _prepare(self) -> None:
        if self._task_runs == "models":
            for item in list(self._waiting):
                if isinstance(item, DbtEvent) and item.node and not item.node.is_hook:
                    info = (item.data or {}).get("node_info") or {}
                    self._folders.learn(item.node.unique_id, str(info.get("node_path") or ""), item.node.total)
        while self._waiting:
            try:
                self._take(self._waiting.popleft())
            except Exception:  # noqa: BLE001  (one odd event must not keep all others from the server)
                self._odd += 1
        now = time.time()
        for node in list(self._quiet.values()):
            if now - node.started_at.timestamp() >= SHOWN_RUNNING_SECONDS:
                if self._is_shown(node.unique_id, node.resource_type):
                    self._show_folder_of(node)
                    self._events.append(running_event(self._flow_run, node, self._position(node.unique_id)))
                del self._quiet[node.unique_id]

    def _show_folder_of(self, node: NodeEvent) -> None:
        around = self._folders.around(node.unique_id, node.unique_id)
        for folder in self._folders.all.values():
            if folder.key == around and not folder.is_shown:
                folder.is_shown = True
                self._events.append(folder_event(self._flow_run, folder, (), is_over=False))

    def _take(self, item: DbtEvent | NodeResult) -> None:
        if isinstance(item, NodeResult):
            self._ended(item)
            return
        if item.node is not None:
            self._node(item.node)
        if item.text.strip():
            self._lines.append(log_document(self._flow_run, item, self._task_run_of(item)))

    def _end_the_rest(self) -> None:
        """Show nodes that were cut off in their work as such: dbt is gone, and they must not look running for ever."""
        for node in self._running.values():
            position = self._position(node.unique_id)
            self._events.append(interrupted_event(self._flow_run, node, position, self.is_stopped))
        for unique_id in self._marked():
            self._show_with_tests(unique_id)
        if self._folders.are_in_use:
            folders, edges = self._folders.all, self._folders.edges(self._parents)
            # In front of what still waits, which may be thousands of nodes: they say what a person wants to know.
            self._events[:0] = [
                folder_event(self._flow_run, folders[name], [folders[each].key for each in before], is_over=True)
                for name, before in edges.items()
            ]
        try:
            self._events += asset_events(self._flow_run, self._assets, self._known())
        except Exception:  # noqa: BLE001  (task runs must not be lost for it)
            self._odd += len(self._assets)
        self._assets = ()
        self._running.clear()
        self._quiet.clear()

    def _node(self, node: NodeEvent) -> None:
        if node.status == STARTED:
            if self._is_shown(node.unique_id, node.resource_type):
                self._shown.add(node.unique_id)
                self._folders.begin(node.unique_id, node.started_at)
            self._running[node.unique_id] = self._quiet[node.unique_id] = node
            return
        self._running.pop(node.unique_id, None)
        self._quiet.pop(node.unique_id, None)
        self._ended(result_of(node))

    def _ended(self, result: NodeResult) -> None:
        is_test = result.resource_type in TEST_TYPES
        # A skipped test says no more than its model, which was not built; one that was not run has a reason of its own.
        outcome = "failed" if result.status in UNTOLD else result.outcome
        if self._is_shown(result.unique_id, result.resource_type, outcome):
            self._shown.add(result.unique_id)
            self._folders.end(result, self._about(result.unique_id))
            self._events.append(finished_event(self._flow_run, result, self._position(result.unique_id)))
        if not is_test:
            self._built[result.unique_id] = result
        for tested in self._known().tested(result.unique_id) if is_test and self._task_runs == "models" else ():
            self._tests.setdefault(tested, {})[result.unique_id] = result
            if _is_bad(result):
                self._show_with_tests(tested)

    def _show_with_tests(self, unique_id: str) -> None:
        """Show what came of the tests of a node as part of its own state."""
        if unique_id in self._built and unique_id in self._shown:
            tests = list(self._tests[unique_id].values())
            self._events.append(
                finished_event(self._flow_run, self._built[unique_id], self._position(unique_id), tests)
            )

    def _marked(self) -> list[str]:
        """Return the nodes of which a test did not pass."""
        return [key for key, tests in self._tests.items() if any(_is_bad(test) for test in tests.values())]

    def _is_shown(self, unique_id: str, resource_type: str, outcome: str | None = None) -> bool:
        """Say whether a node has a task run of its own, as far as is known while it runs (outcome None)."""
        # One that failed is shown when a later attempt goes well, too.
        if self._task_runs == "all" or unique_id in self._shown or outcome in ("failed", "warned"):
            return True
        if outcome == "skipped" and (self._task_runs == "failures" or resource_type not in TEST_TYPES):
            return True
        return self._task_runs == "models" and resource_type not in TEST_TYPES

    def _about(self, unique_id: str) -> str:
        """Return the unique id of the model that a test is about, and of anything else itself."""
        return next(iter(self._known().tested(unique_id)), unique_id)

    def _position(self, unique_id: str) -> Position:
        """Return where a node is drawn: after those in its own folder, or after folders when it stands by itself."""
        parents = self._parents(unique_id)
        if not self._folders.are_in_use:
            return Position(parents)
        here = self._folders.around(unique_id, self._about(unique_id))
        folders = {parent: self._folders.around(parent, self._about(parent)) for parent in parents}
        if here:
            return Position([parent for parent in parents if folders[parent] == here], here)
        return Position(list(dict.fromkeys(folders[parent] or parent for parent in parents)))

    def _path_of(self, unique_id: str) -> str:
        node = self._known().nodes.get(unique_id)
        return node.path if node else ""

    def _task_run_of(self, event: DbtEvent) -> str | None:
        """Return the unique id of the node in whose task run a line is: a passing test is with its model."""
        unique_id = event.unique_id
        if unique_id is None or self._task_runs == "all" or unique_id in self._shown:
            return unique_id
        return next((model for model in self._known().tested(unique_id) if model in self._shown), None)

    def _parents(self, unique_id: str) -> list[str]:
        return self._known().parents(unique_id, self._shown)

    def _known(self) -> Manifest:
        if self._manifest is None or not self._manifest.nodes:
            # dbt 1 writes it when it has parsed, before the first node starts; dbt 2 at its end.
            self._manifest = self._artifacts.manifest_if_any
        return self._manifest

    def _flush(self, sender: Sender, is_last: bool) -> None:
        if is_last or self._has_recorded is None:
            self._delivery.send(sender, EVENTS, self._events)
        elif self._events and self._is_worked_off(self._has_recorded):
            last = self._events[: self._batch][-1]
            self._delivery.send(sender, EVENTS, self._events, self._batch)
            self._in_flight = last, time.monotonic()
        # The server answers when it has written them: there are never more in flight than one request.
        self._delivery.send(sender, LINES, self._lines)

    def _is_worked_off(self, has_recorded: Callable[[Mapping[str, Any]], bool]) -> bool:
        """Say whether the server has made task runs of what it was sent last, and send more or fewer accordingly."""
        if self._in_flight is None:
            return True
        event, sent_at = self._in_flight
        waited_seconds = time.monotonic() - sent_at
        if not has_recorded(event) and waited_seconds < _WORKED_OFF_SECONDS:
            return False
        is_fast = waited_seconds < 2 * self._flush_seconds
        self._batch = min(2 * self._batch, BATCH_SIZE) if is_fast else max(self._batch // 2, _FIRST_BATCH)
        self._in_flight = None
        return True


def _is_bad(test: NodeResult) -> bool:
    return test.outcome in ("failed", "warned")


def _patience_seconds() -> float:
    return _GIVEN_UP_SECONDS if is_server_away() else CLOSE_SECONDS
