"""What came of a dbt command: one result per node, over all attempts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flows.engine.artifacts.artifacts import Artifacts, Details, ResultsFile, moment_of
from flows.engine.artifacts.manifest import Manifest
from flows.engine.context.events import FAILED, REUSED, SKIPPED, SUCCEEDED, WARNED, NodeEvent, name_in
from infrastructure.errors import preview
from infrastructure.plain_text import plain, said_lines

# The order in which outcomes are counted and shown.
OUTCOMES = ("succeeded", "warned", "failed", "skipped")
# What dbt says of a model in batches: how many went well. Why the others did not follows, each after a gap.
_COUNT = re.compile(r"ERROR|PARTIAL SUCCESS \(\d+/\d+\)")
PARAGRAPH = "\n\n"


@dataclass(frozen=True)
class FailingRows:
    """Some of the rows that a test found, as text; what must not be seen is masked already."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class NodeResult:
    """How one node ended.

    Attributes:
        status: as dbt spells it.
        seconds: from the node's start to its end, queueing not included.
        message: dbt's last word on it, such as the database's error; empty for most successes.
        failures: rows that a test found.
        adapter_response: what the warehouse reported, such as rows affected.
        attempts: how many times it was run in this command; 0 for one that was always skipped.
        earlier_messages: why the attempts before the last one failed.
        compile_seconds, execute_seconds: dbt's own figures of the last attempt; None where it gave none.
    """

    unique_id: str
    name: str
    resource_type: str
    materialized: str
    status: str
    started_at: datetime
    finished_at: datetime
    message: str = ""
    failures: int | None = None
    relation: str | None = None
    adapter_response: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 1
    earlier_messages: tuple[str, ...] = ()
    thread: str | None = None
    compile_seconds: float | None = None
    execute_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """Return how long the node ran, in seconds."""
        return max(0.0, (self.finished_at - self.started_at).total_seconds())

    def as_event(self) -> NodeEvent:
        """Return the event that this result was made of."""
        return NodeEvent(
            unique_id=self.unique_id,
            name=self.name,
            resource_type=self.resource_type,
            materialized=self.materialized,
            status=self.status,
            started_at=self.started_at,
            finished_at=self.finished_at,
            failures=self.failures,
            relation=self.relation,
            thread=self.thread,
        )

    @property
    def outcome(self) -> str:
        """Return one of OUTCOMES."""
        if self.status in FAILED:
            return "failed"
        if self.status in WARNED:
            return "warned"
        if self.status in SKIPPED:
            return "skipped"
        return "succeeded" if self.status in SUCCEEDED else "failed"

    @property
    def row_count(self) -> int | None:
        """Return how many rows the warehouse says were written; None where it says nothing."""
        return whole_count(self.adapter_response.get("rows_affected"))

    @property
    def bytes_processed(self) -> int | None:
        """Return how many bytes the warehouse says were read; BigQuery alone says so."""
        return whole_count(self.adapter_response.get("bytes_processed"))

    @property
    def query_id(self) -> str | None:
        """Return what the warehouse calls the statement; Snowflake and BigQuery say so."""
        return self.adapter_response.get("query_id") or self.adapter_response.get("job_id")

    @property
    def is_reused(self) -> bool:
        """Return whether dbt left it as it was, having found nothing in it to build; it counts as succeeded."""
        return self.status == REUSED


@dataclass(frozen=True)
class Stopped:
    """What a command that was ended before its end has left undone; as text, a sentence without its full stop.

    Attributes:
        done_count: nodes that had ended by then.
        cut_off: names of the nodes that were in their work.
        hooks: names of the hooks that were in theirs.
        not_begun_count: nodes whose turn had not come; None where dbt had not yet said how many it runs.
        not_begun: their names; empty where only their number is known.
    """

    done_count: int
    cut_off: tuple[str, ...] = ()
    not_begun_count: int | None = None
    not_begun: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()

    def __str__(self) -> str:
        in_hooks = f", while {preview(self.hooks)} ran" if self.hooks else ""
        return f"{self._nodes()}{in_hooks}"

    def _nodes(self) -> str:
        if not self.done_count and not self.cut_off and self.not_begun_count is None:
            return "no node had begun"
        total = self.done_count + len(self.cut_off) + (self.not_begun_count or 0)
        parts = [f"{self.done_count} of {total} nodes were done"]
        if self.cut_off:
            parts.append(f"{len(self.cut_off)} cut off ({preview(self.cut_off)})")
        if self.not_begun_count:
            names = f" ({preview(self.not_begun)})" if self.not_begun else ""
            parts.append(f"{self.not_begun_count} not begun{names}")
        return ", ".join(parts)


@dataclass(frozen=True)
class DbtResult:
    """What came of one dbt command.

    Attributes:
        target_path: folder of dbt's artifacts.
        run_path: folder of this run's ledger and log.
        notes: warnings that are about no node, such as a selection that matched nothing.
        stopped: what was left undone; None for a command that came to its own end.
        commit: of the repository that the project was fetched from; None for a project in a folder.
    """

    command: str
    target: str
    nodes: tuple[NodeResult, ...]
    started_at: datetime
    finished_at: datetime
    target_path: Path
    run_path: Path
    notes: tuple[str, ...] = ()
    stopped: Stopped | None = None
    commit: str | None = None

    @property
    def artifacts(self) -> Artifacts:
        """Return what dbt has left of it."""
        return Artifacts(self.target_path)

    @property
    def seconds(self) -> float:
        """Return how long the command took, in seconds, retries included."""
        return (self.finished_at - self.started_at).total_seconds()

    def counts(self) -> dict[str, int]:
        """Return how many nodes had each of OUTCOMES."""
        found = Counter(node.outcome for node in self.nodes)
        return {outcome: found[outcome] for outcome in OUTCOMES}

    def of(self, *outcomes: str) -> list[NodeResult]:
        """Return the nodes with one of these outcomes, in the order in which they ended."""
        return [node for node in self.nodes if node.outcome in outcomes]


def result_of(event: NodeEvent, earlier: NodeResult | None = None) -> NodeResult:
    """Return the result that a finishing event stands for; `earlier` is the same node's last attempt."""
    assert event.finished_at is not None
    return NodeResult(
        unique_id=event.unique_id,
        name=event.name,
        resource_type=event.resource_type,
        materialized=event.materialized,
        status=event.status,
        started_at=event.started_at,
        finished_at=event.finished_at,
        failures=event.failures,
        relation=event.relation,
        # Who was kept from running has not been tried.
        attempts=(earlier.attempts if earlier else 0) + (event.status not in SKIPPED),
        earlier_messages=(*earlier.earlier_messages, earlier.message)
        if earlier and earlier.outcome == "failed"
        else (),
        thread=event.thread,
    )


def results_alone(run: ResultsFile, manifest: Manifest, ended_at: datetime) -> Iterator[NodeResult]:
    """Yield what a run_results.json says by itself, without the lines of the dbt command that wrote it.

    Args:
        ended_at: the end of the run, for nodes of which no time is known.
    """
    for unique_id, entry in run.entries.items():
        node = manifest.nodes.get(unique_id)
        status = str(entry.get("status") or "error").lower()
        timing = [phase for phase in entry.get("timing") or () if phase.get("started_at") and phase.get("completed_at")]
        finished_at = run.written_at or ended_at
        started_at = finished_at - timedelta(seconds=float(entry.get("execution_time") or 0.0))
        if timing:
            started_at = moment_of(min(phase["started_at"] for phase in timing)) or started_at
            finished_at = moment_of(max(phase["completed_at"] for phase in timing)) or finished_at
        yield NodeResult(
            unique_id=unique_id,
            name=name_in(unique_id, manifest.nodes),
            resource_type=node.resource_type if node else unique_id.partition(".")[0],
            materialized=node.materialized if node else "",
            status=status,
            started_at=started_at,
            finished_at=finished_at,
            message="" if status in ("success", "pass") else str(entry.get("message") or ""),
            failures=entry.get("failures"),
            relation=entry.get("relation_name"),
            adapter_response=_response(entry),
        )


def whole_count(value: object) -> int | None:
    """Return a figure of an adapter; None for what counts nothing, as dbt-snowflake's -1 does."""
    return value if isinstance(value, int) and value >= 0 else None


def _response(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in (entry.get("adapter_response") or {}).items() if value not in (None, "")}


def with_messages(
    results: Iterable[NodeResult], messages: Mapping[str, str], of_batches: Mapping[str, Sequence[str]] | None = None
) -> list[NodeResult]:
    """Return results with a message from the log for failed nodes whose own says nothing.

    Args:
        messages: why a node failed.
        of_batches: what came of each batch of a node that failed; its own message is a mere count.
    """
    of_batches = of_batches or {}
    out: list[NodeResult] = []
    for result in results:
        if result.outcome == "failed" and (said := of_batches.get(result.unique_id)):
            if not result.message or is_count(result.message):
                result = replace(result, message=PARAGRAPH.join([result.message or "ERROR", *map(_sentence, said)]))
        elif result.outcome == "failed" and not result.message and result.unique_id in messages:
            result = replace(result, message=messages[result.unique_id].strip())
        out.append(result)
    return out


def unbuilt_batches(details: Details) -> dict[str, dict[str, Any]]:
    """Return what was built and what was not of the models of which some batches failed, as dbt writes it.

    Where no batch succeeded, dbt starts such a model again, which it can't when it gets a list of batches.
    """
    batches = {unique_id: entry.get("batch_results") for unique_id, entry in details.items()}
    return {
        unique_id: found for unique_id, found in batches.items() if found and found["successful"] and found["failed"]
    }


def is_count(message: str) -> bool:
    """Say whether a message only counts batches, as dbt's own of a model in batches does."""
    return _COUNT.fullmatch(message) is not None


def _sentence(said: str) -> str:
    return "\n".join(line for line in said_lines(said) if line.strip())


def enriched(results: Iterable[NodeResult], details: Details) -> list[NodeResult]:
    """Return results with what only dbt's artifact says: messages, failing rows, the adapter's figures."""
    out: list[NodeResult] = []
    for result in results:
        entry = details.get(result.unique_id)
        if entry is None:
            out.append(result)
            continue
        failures = entry.get("failures")
        message = plain(entry.get("message") or "")
        seconds = _timing(entry)
        out.append(
            replace(
                result,
                message=message if result.outcome != "succeeded" else "",
                failures=result.failures if failures is None else failures,
                relation=entry.get("relation_name") or result.relation,
                adapter_response=_response(entry),
                thread=entry.get("thread_id") or result.thread,
                compile_seconds=seconds.get("compile"),
                execute_seconds=seconds.get("execute"),
            )
        )
    return out


def _timing(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of each phase that dbt timed."""
    seconds: dict[str, float] = {}
    for phase in entry.get("timing") or ():
        if phase.get("started_at") and phase.get("completed_at"):
            begun, ended = (datetime.fromisoformat(phase[key]) for key in ("started_at", "completed_at"))
            seconds[phase["name"]] = max(0.0, (ended - begun).total_seconds())
    return seconds
