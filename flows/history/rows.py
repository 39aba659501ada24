"""Turn a finished dbt command into rows of the history: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flows.engine.artifacts.artifacts import SourceAge
from flows.engine.artifacts.manifest import TEST_TYPES, Manifest, reach
from flows.engine.artifacts.results import DbtResult, NodeResult, whole_count
from flows.engine.context.command import DbtCommand, is_on_a_part
from infrastructure.errors import RunStopped

MESSAGE_CHARACTERS = 2000

Row = dict[str, Any]


@dataclass(frozen=True)
class FlowTimes:
    """When the flow of a run began, and when it was scheduled; None for a run without a schedule."""

    id: str
    started_at: datetime | None = None
    scheduled_at: datetime | None = None


@dataclass(frozen=True)
class RunPlace:
    """Where a run was: its project, and the kind of its warehouse."""

    project: str
    warehouse: str


def rows_of(
    result: DbtResult,
    command: DbtCommand,
    place: RunPlace,
    manifest: Manifest,
    freshness: Mapping[str, SourceAge] | None = None,
    flow: FlowTimes | None = None,
    error: Exception | str | None = None,
) -> list[Row]:
    """Return the rows of a run; a single row without a node where no node ran.

    Args:
        freshness: what a freshness check found, by unique id.
        error: why the command failed; None when it did not.
    """
    run: Row = {
        "run_id": result.run_path.name,
        "flow_run_id": flow.id if flow else None,
        "project": place.project,
        "commit_hash": result.commit,
        "target": result.target,
        "warehouse": place.warehouse,
        "command": result.command,
        "selection": _selection(command),
        "is_full_refresh": command.full_refresh,
        "scheduled_at": utc(flow.scheduled_at) if flow and flow.scheduled_at else None,
        "flow_started_at": utc(flow.started_at) if flow and flow.started_at else None,
        "run_started_at": utc(result.started_at),
        "run_finished_at": utc(result.finished_at),
        "run_outcome": run_outcome(result, error),
        "run_error": str(error)[:MESSAGE_CHARACTERS] if error else None,
    }
    waited = waits(result.nodes, manifest, is_build=command.verb == "build")
    ages = freshness or {}
    rows = [
        run | _node(node, manifest) | _wait(waited[node.unique_id]) | _freshness(ages.get(node.unique_id))
        for node in result.nodes
    ]
    return rows or [run]


def run_outcome(result: DbtResult, error: Exception | str | None) -> str:
    """Return how a run ended: cancelled, failed, warned or succeeded."""
    if isinstance(error, RunStopped) and not result.of("failed"):
        return "cancelled"
    if error or result.of("failed"):
        return "failed"
    return "warned" if result.of("warned") else "succeeded"


@dataclass(frozen=True, slots=True)
class Wait:
    """The parent of a node that ended last, and how long the node waited for a free thread after that."""

    waited_for: str | None
    queue_seconds: float


def waits(nodes: Iterable[NodeResult], manifest: Manifest, is_build: bool) -> dict[str, Wait]:
    """Return what each node waited for.

    Args:
        is_build: tests hold back what is downstream of the tested node, as in `dbt build`.
    """
    ran = {node.unique_id: node for node in nodes}
    begin = min((node.started_at for node in ran.values()), default=None)
    tests = manifest.tests_among(key for key, node in ran.items() if node.resource_type == "test") if is_build else {}
    found: dict[str, Wait] = {}
    for unique_id, node in ran.items():
        before = manifest.parents(unique_id, ran)
        if tests and node.resource_type not in TEST_TYPES:
            before += _tests_before(unique_id, before, tests, manifest)
        # A retry may have run a parent again after its children.
        ended = [ran[other] for other in before if ran[other].finished_at <= node.started_at]
        last = max(ended, key=lambda other: other.finished_at, default=None)
        ready_at = last.finished_at if last else begin
        assert ready_at is not None
        seconds = max(0.0, (node.started_at - ready_at).total_seconds())
        found[unique_id] = Wait(last.unique_id if last else None, seconds)
    return found


def _tests_before(
    unique_id: str, parents: Iterable[str], tests: Mapping[str, list[str]], manifest: Manifest
) -> list[str]:
    """Return the tests of its parents that dbt runs before a node: those about nothing but what it depends on."""
    found: list[str] = []
    upstream: set[str] = set()
    for parent in parents:
        for test in tests.get(parent, ()):
            tested = manifest.nodes[test].tests
            if len(tested) > 1:
                upstream = upstream or set(reach(manifest.before(unique_id), manifest.before))
                if not upstream.issuperset(tested):
                    continue
            found.append(test)
    return found


def _selection(command: DbtCommand) -> str | None:
    """Return what was selected, in words, also of the rows; None for everything."""
    flags = command.flags if is_on_a_part(command.flags, batches_too=True) else ()
    rows = " ".join(flag for flag in flags if flag.startswith("--"))
    parts = (("", command.select), ("selector:", command.selector), ("without ", command.exclude), ("with ", rows))
    return ", ".join(f"{word}{value}" for word, value in parts if value) or None


def _node(node: NodeResult, manifest: Manifest) -> Row:
    known = manifest.nodes.get(node.unique_id)
    response = node.adapter_response
    return {
        "unique_id": node.unique_id,
        "name": node.name,
        "resource_type": node.resource_type,
        "materialized": node.materialized or None,
        "relation": node.relation,
        "tags": list(known.tags) if known else [],
        "owner": next(iter(manifest.declared_owners(node.unique_id)), None),
        "severity": known.severity or None if known else None,
        "is_critical": manifest.is_critical(node.unique_id),
        "tested": list(known.tests) if known else [],
        "depends_on": manifest.read_by(node.unique_id),
        "path": known.path or None if known else None,
        "outcome": node.outcome,
        "status": node.status,
        "attempts": node.attempts,
        "thread": node.thread,
        "started_at": utc(node.started_at),
        "finished_at": utc(node.finished_at),
        "seconds": node.seconds,
        "compile_seconds": node.compile_seconds,
        "execute_seconds": node.execute_seconds,
        "rows_affected": node.row_count,
        "failures": node.failures,
        # BigQuery reports bytes read and billed.
        "bytes_processed": node.bytes_processed,
        "bytes_billed": whole_count(response.get("bytes_billed")),
        "slot_milliseconds": whole_count(response.get("slot_ms")),
        "query_id": node.query_id,
        "message": node.message[:MESSAGE_CHARACTERS] or None,
    }


def _wait(wait: Wait) -> Row:
    return {"waited_for": wait.waited_for, "queue_seconds": wait.queue_seconds}


def _freshness(age: SourceAge | None) -> Row:
    if age is None:
        return {}
    return {
        "max_loaded_at": age.max_loaded_at and utc(age.max_loaded_at),
        "checked_at": age.checked_at and utc(age.checked_at),
        "age_seconds": age.age_seconds,
        "warn_after_seconds": age.warn_after and age.warn_after.seconds,
        "error_after_seconds": age.error_after and age.error_after.seconds,
    }


def utc(moment: datetime) -> datetime:
    """Return a moment as naive UTC."""
    # Prefect's own moments, which are not the standard library's, warn of a plain `replace` since 3.9.
    return datetime.fromtimestamp(moment.timestamp(), UTC).replace(tzinfo=None)
