"""What happens in a run, as typed events: what its ledger says, in its order, for all sinks.

The ledger is the queue: who was away reads on where it was. Of one ledger the events are always the same, and more
entries only ever add events, so that a count of those that were taken says where to go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from flows.engine.artifacts.results import NodeResult, result_of
from flows.engine.context.events import CUT_OFF, FAILED, SKIPPED, STARTED, NodeEvent
from flows.engine.context.run_context import FlowRun
from flows.engine.ledger.ledger import TAKEN_OVER
from infrastructure.errors import preview

# How a run ended: `aborted` when it was stopped or killed, so that nothing says what it would have come to.
Ending = Literal["succeeded", "failed", "aborted"]

_CUT_OFF = "Cut off in its work: dbt was stopped before it had ended."


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A dbt command began.

    Attributes:
        run: the name of its folder.
        command: as people say it, such as `dbt build`.
        address: where its relations are, in OpenLineage's words, such as postgres://db:5432; see `addresses.py`.
        flow_run: None outside of one.
        resumes: the run that this one goes on with.
    """

    run: str
    command: str
    project: str
    target: str
    warehouse: str
    address: str
    at: datetime
    flow_run: FlowRun | None = None
    resumes: str | None = None


@dataclass(frozen=True, slots=True)
class NodesPlanned:
    """dbt has worked out which nodes it is going to run."""

    unique_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodesReused:
    """A run with `--changed` leaves nodes as they are; the reason by unique id."""

    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A node began.

    Attributes:
        number: which of its starts in this run it is, from 1.
    """

    node: NodeEvent
    number: int


@dataclass(frozen=True, slots=True)
class NodeEnded:
    """A node ended, with all that is known of it: outcome, rows, bytes, query id, relation, message.

    Attributes:
        number: as that of its start; 0 where it did not start.
    """

    result: NodeResult
    number: int


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A dbt command ended.

    Attributes:
        message: what was wrong; empty where nothing was.
    """

    at: datetime
    ending: Ending
    message: str = ""


RunEvent = RunStarted | NodesPlanned | NodesReused | NodeStarted | NodeEnded | RunEnded


class StreamReader:
    """Turn the entries of one ledger, each once and in their order, into events.

    The end of a node is an event as soon as its figures are known, which dbt has at the end of a command alone.

    Args:
        run: the name of the run's folder.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._starts: Counter[str] = Counter()
        self._running: dict[str, NodeEvent] = {}
        # Ended, and nothing more is known yet; with the number of the start.
        self._waiting: dict[str, tuple[NodeResult, int]] = {}
        self._last: dict[str, NodeResult] = {}
        self._at: datetime | None = None
        self._said = ""
        self._is_over = False

    def take(self, entry: Mapping[str, Any]) -> Iterator[RunEvent]:
        """Yield the events that an entry stands for; none for most kinds."""
        if self._is_over:
            return
        self._at = entry.get("at") or self._at
        match entry.get("kind"):
            case "run":
                yield self._started(entry)
            case "selected":
                yield NodesPlanned(tuple(entry["nodes"]))
            case "reused":
                yield NodesReused(entry["nodes"])
            case "node" if entry.get("attempt") != TAKEN_OVER:
                yield from self._node(NodeEvent(**entry["event"]))
            case "learned":
                yield from self._learned(entry["nodes"])
            case "not run":
                yield from self._not_run(entry["nodes"])
            case "stopped":
                self._said = f"The run was stopped: {entry['undone']}."
            case "error":
                yield from self._end("failed", entry["message"])
            case "end":
                failed = [node.name for node in self._last.values() if node.outcome == "failed"]
                message = f"{len(failed)} of {len(self._last)} nodes failed: {preview(failed)}." if failed else ""
                message = entry.get("message") or message or self._said or "Not every node came to a good end."
                yield from self._end("succeeded", "") if entry.get("is_ok") else self._end("failed", message)
            case "recorded":
                yield from self.over()
            case _:
                pass

    def over(self) -> Iterator[RunEvent]:
        """Yield what follows from there being no more entries, ever: the process of the run is gone."""
        if not self._is_over and self._at:
            yield from self._end("aborted", self._said or "The process of the run was killed.")

    def _started(self, entry: Mapping[str, Any]) -> RunStarted:
        said: Mapping[str, Any] = entry["command"]
        place: Mapping[str, Any] = entry.get("place") or {}
        flow_run: Mapping[str, Any] | None = entry.get("flow_run")
        return RunStarted(
            run=self._run,
            command=f"dbt {said['verb']}",
            project=place.get("project", ""),
            target=entry["target"],
            warehouse=place.get("warehouse", ""),
            address=place.get("address", ""),
            at=entry["at"],
            flow_run=FlowRun(UUID(flow_run["id"]), flow_run["name"], flow_run["flow"]) if flow_run else None,
            resumes=entry.get("resumes"),
        )

    def _node(self, event: NodeEvent) -> Iterator[RunEvent]:
        self._at = max(self._at or event.at, event.at)
        if event.status == STARTED:
            yield self._begun(event)
            return
        has_begun = event.unique_id in self._running
        if not has_begun and event.status not in SKIPPED:
            yield self._begun(replace(event, status=STARTED, finished_at=None))
            has_begun = True
        self._running.pop(event.unique_id, None)
        self._waiting[event.unique_id] = result_of(event), self._starts[event.unique_id] if has_begun else 0

    def _begun(self, event: NodeEvent) -> NodeStarted:
        self._running[event.unique_id] = event
        self._starts[event.unique_id] += 1
        return NodeStarted(event, self._starts[event.unique_id])

    def _learned(self, nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[RunEvent]:
        """Yield the ends that the end of a dbt command settles; what it calls done has to be known to its artifact."""
        for unique_id, (result, _) in list(self._waiting.items()):
            if unique_id in nodes or result.status in FAILED | SKIPPED:
                said = nodes.get(unique_id) or {}
                yield self._ended(
                    replace(result, message=said.get("message", ""), adapter_response=said.get("response") or {})
                )
        yield from self._cut_off()

    def _not_run(self, nodes: Mapping[str, str]) -> Iterator[RunEvent]:
        """Yield the ends of what dbt calls done and nothing proves."""
        for unique_id in [key for key in nodes if key in self._waiting]:
            yield self._ended(replace(self._waiting[unique_id][0], status="error", message=nodes[unique_id]))

    def _cut_off(self) -> Iterator[RunEvent]:
        at = self._at
        for event in list(self._running.values()):
            ended = replace(event, status=CUT_OFF, finished_at=max(at or event.at, event.started_at))
            self._waiting[event.unique_id] = result_of(ended), self._starts[event.unique_id]
            yield self._ended(replace(result_of(ended), message=_CUT_OFF, attempts=1))
        self._running.clear()

    def _ended(self, result: NodeResult) -> NodeEnded:
        _, number = self._waiting.pop(result.unique_id)
        self._last[result.unique_id] = result
        return NodeEnded(result, number)

    def _end(self, ending: Ending, message: str) -> Iterator[RunEvent]:
        for result, _ in list(self._waiting.values()):
            yield self._ended(result)
        yield from self._cut_off()
        self._is_over = True
        assert self._at
        yield RunEnded(self._at, ending, message)
