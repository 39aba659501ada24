"""A finished dbt command as rows of the history: pure, from what the run left behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import orjson

from flows.engine.artifacts.graph import Graph, graph_of, is_critical, meta_of
from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.context.command import DbtCommand

MESSAGE_CHARACTERS = 2000
_PERIOD_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}

Row = dict[str, Any]


@dataclass(frozen=True)
class FlowTimes:
    """When the flow around a run began, and when its schedule wanted it to; None for what nobody scheduled."""

    id: str
    started_at: datetime | None = None
    scheduled_at: datetime | None = None


@dataclass(frozen=True)
class DeclaredNodes:
    """What the project says of its nodes: the edges between them, and each one's tags, owner and weight."""

    graph: Graph
    entries: Mapping[str, Mapping[str, Any]]
    group_owners: Mapping[str, str]

    def owner(self, unique_id: str) -> str | None:
        """Return who answers for a node: its own meta, else its group; for a test, those of what it tests."""
        entry = self.entries.get(unique_id, {})
        named = meta_of(entry).get("owner") or self.group_owners.get(str(entry.get("group")))
        if named:
            return str(named)
        node = self.graph.nodes.get(unique_id)
        return next((owner for tested in (node.tests if node else ()) if (owner := self.owner(tested))), None)

    def is_critical(self, unique_id: str) -> bool:
        """Return whether its owner marked it so."""
        return is_critical(self.entries.get(unique_id, {}))


NOTHING_DECLARED = DeclaredNodes(Graph({}), {}, {})


def read_declared(manifest: Path) -> DeclaredNodes:
    """Read what a project declares from its manifest; nothing where there is none."""
    try:
        document = cast(dict[str, Any], orjson.loads(manifest.read_bytes()))
        entries: dict[str, Mapping[str, Any]] = {}
        for section in ("nodes", "sources", "unit_tests"):
            entries.update(document.get(section) or {})
        owners = {
            group["name"]: str(group["owner"].get("name") or group["owner"].get("email") or "")
            for group in (document.get("groups") or {}).values()
        }
        return DeclaredNodes(graph_of(document), entries, owners)
    except (OSError, orjson.JSONDecodeError, KeyError, AttributeError, TypeError):
        return NOTHING_DECLARED


def rows_of(
    result: DbtResult,
    command: DbtCommand,
    project: str,
    warehouse: str,
    declared: DeclaredNodes,
    freshness: Mapping[str, Mapping[str, Any]] | None = None,
    flow: FlowTimes | None = None,
    error: str | None = None,
) -> list[Row]:
    """Return the rows of a run; one without a node where no node ran.

    Args:
        freshness: dbt's entries of sources.json by unique id, for a freshness check.
        error: why the command failed; None when it did not.
    """
    run: Row = {
        "run_id": result.run_path.name,
        "flow_run_id": flow.id if flow else None,
        "project": project,
        "target": result.target,
        "warehouse": warehouse,
        "command": result.command,
        "selection": _selection(command),
        "is_full_refresh": command.full_refresh,
        "scheduled_at": utc(flow.scheduled_at) if flow and flow.scheduled_at else None,
        "flow_started_at": utc(flow.started_at) if flow and flow.started_at else None,
        "run_started_at": utc(result.started_at),
        "run_finished_at": utc(result.finished_at),
        "run_outcome": run_outcome(result, error),
        "run_error": error and error[:MESSAGE_CHARACTERS],
    }
    waited = waits(result.nodes, declared.graph, is_build=command.verb == "build")
    entries = freshness or {}
    rows = [
        run | _node(node, declared) | _wait(waited[node.unique_id]) | _freshness(entries.get(node.unique_id))
        for node in result.nodes
    ]
    return rows or [run]


def run_outcome(result: DbtResult, error: str | None) -> str:
    """Return how a run ended: failed, warned or succeeded."""
    if error or result.of("failed"):
        return "failed"
    return "warned" if result.of("warned") else "succeeded"


@dataclass(frozen=True, slots=True)
class Wait:
    """What a node stood on that ended last, and how long it waited for a free thread after that."""

    waited_for: str | None
    queue_seconds: float


def waits(nodes: Iterable[NodeResult], graph: Graph, is_build: bool) -> dict[str, Wait]:
    """Return what each node waited for.

    Args:
        is_build: tests hold back what stands on the tested node, as in `dbt build`.
    """
    ran = {node.unique_id: node for node in nodes}
    begin = min((node.started_at for node in ran.values()), default=None)
    tests = _tests_by_node(ran, graph) if is_build else {}
    found: dict[str, Wait] = {}
    for unique_id, node in ran.items():
        before = graph.parents(unique_id, ran)
        if tests and node.resource_type not in ("test", "unit_test"):
            before += _tests_before(unique_id, before, tests, graph)
        # A retry may have run something again that others had long stood on.
        ended = [ran[other] for other in before if ran[other].finished_at <= node.started_at]
        last = max(ended, key=lambda other: other.finished_at, default=None)
        ready_at = last.finished_at if last else begin
        assert ready_at is not None
        seconds = max(0.0, (node.started_at - ready_at).total_seconds())
        found[unique_id] = Wait(last.unique_id if last else None, seconds)
    return found


def _tests_by_node(ran: Mapping[str, NodeResult], graph: Graph) -> dict[str, list[str]]:
    tests: dict[str, list[str]] = {}
    for unique_id, node in ran.items():
        if node.resource_type == "test" and unique_id in graph.nodes:
            for tested in graph.nodes[unique_id].tests:
                tests.setdefault(tested, []).append(unique_id)
    return tests


def _tests_before(unique_id: str, parents: Iterable[str], tests: Mapping[str, list[str]], graph: Graph) -> list[str]:
    """Return the tests of its parents that dbt runs before a node: those about nothing but what it stands on."""
    found: list[str] = []
    upstream: set[str] | None = None
    for parent in parents:
        for test in tests.get(parent, ()):
            tested = graph.nodes[test].tests
            if len(tested) > 1:
                upstream = graph.upstream([unique_id]) if upstream is None else upstream
                if not upstream.issuperset(tested):
                    continue
            found.append(test)
    return found


def read_freshness(path: Path, result: DbtResult) -> dict[str, Mapping[str, Any]]:
    """Return the entries of a sources.json that this very run wrote, by unique id."""
    try:
        document = cast(dict[str, Any], orjson.loads(path.read_bytes()))
        written_at = _moment(document["metadata"]["generated_at"])
        if written_at is None or written_at < utc(result.started_at):
            return {}
        return {entry["unique_id"]: entry for entry in document["results"]}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return {}


def _selection(command: DbtCommand) -> str | None:
    """Return what was selected, in words; None for everything."""
    parts = (("", command.select), ("selector:", command.selector), ("without ", command.exclude))
    return ", ".join(f"{word}{value}" for word, value in parts if value) or None


def _node(node: NodeResult, declared: DeclaredNodes) -> Row:
    known = declared.graph.nodes.get(node.unique_id)
    response = node.adapter_response
    return {
        "unique_id": node.unique_id,
        "name": node.name,
        "resource_type": node.resource_type,
        "materialized": node.materialized or None,
        "relation": node.relation,
        "tags": list(known.tags) if known else [],
        "owner": declared.owner(node.unique_id),
        "severity": known.severity or None if known else None,
        "is_critical": declared.is_critical(node.unique_id),
        "tested": list(known.tests) if known else [],
        "depends_on": list(known.depends_on) if known else [],
        "outcome": node.outcome,
        "status": node.status,
        "attempts": node.attempts,
        "thread": node.thread,
        "started_at": utc(node.started_at),
        "finished_at": utc(node.finished_at),
        "seconds": node.seconds,
        "compile_seconds": node.compile_seconds,
        "execute_seconds": node.execute_seconds,
        "rows_affected": _count(response.get("rows_affected")),
        "failures": node.failures,
        # BigQuery says what it read and billed; Snowflake and BigQuery name the query.
        "bytes_processed": _count(response.get("bytes_processed")),
        "bytes_billed": _count(response.get("bytes_billed")),
        "slot_milliseconds": _count(response.get("slot_ms")),
        "query_id": response.get("query_id") or response.get("job_id"),
        "message": node.message[:MESSAGE_CHARACTERS] or None,
    }


def _wait(wait: Wait) -> Row:
    return {"waited_for": wait.waited_for, "queue_seconds": wait.queue_seconds}


def _freshness(entry: Mapping[str, Any] | None) -> Row:
    if not entry:
        return {}
    criteria = entry.get("criteria") or {}
    return {
        "max_loaded_at": _moment(entry.get("max_loaded_at")),
        "checked_at": _moment(entry.get("snapshotted_at")),
        "age_seconds": entry.get("max_loaded_at_time_ago_in_s"),
        "warn_after_seconds": _period(criteria.get("warn_after")),
        "error_after_seconds": _period(criteria.get("error_after")),
    }


def _period(limit: Mapping[str, Any] | None) -> float | None:
    if not limit or not limit.get("count"):
        return None
    return float(limit["count"] * _PERIOD_SECONDS[limit["period"]])


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _moment(text: str | None) -> datetime | None:
    """Return a moment of dbt's artifacts as the history has it; dbt leaves out the zone of some, and means UTC."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return utc(moment) if moment.tzinfo else moment


def utc(moment: datetime) -> datetime:
    """Return a moment as the history has it: UTC, without a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None)
