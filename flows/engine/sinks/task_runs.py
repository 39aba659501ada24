"""dbt events as what Prefect's API takes: task-run events and log lines, as plain documents.

Prefect 3 records a task run from the events that its client sends. Here they are posted in batches to the same public
endpoint (`POST /events`), which acknowledges them: no HTTP call per node, and nothing lost when the server is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from flows.engine.artifacts.results import NodeResult
from flows.engine.context.events import DbtEvent, NodeEvent, name_in
from flows.engine.context.run_context import FlowRun
from flows.engine.context.state import TEXT_LOG
from flows.engine.sinks.folders import Folder
from infrastructure.errors import preview
from infrastructure.plain_text import count_of, cut

TASK_KEY = "dbt-node"
# The server keeps a line whole, however long, and its UI shows it whole.
_LOG_CHARACTERS = 20_000
_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40}

# dbt's outcome as a Prefect state: type, name. Warned nodes did run and nothing stops because of them; skipped ones
# never ran, which Prefect calls cancelled, and must not look finished.
_STATES: dict[str, tuple[str, str]] = {
    "succeeded": ("COMPLETED", "Completed"),
    "warned": ("COMPLETED", "Warned"),
    "failed": ("FAILED", "Failed"),
    "skipped": ("CANCELLED", "Skipped"),
}


@dataclass(frozen=True)
class Position:
    """Where a task run is drawn: unique ids of what it follows, and of what it stands in."""

    parents: Sequence[str] = ()
    around: str | None = None


def task_run_id(flow_run: FlowRun, unique_id: str) -> UUID:
    """Return the id of a node's task run; the same for every attempt, so that it reads as one."""
    return uuid5(flow_run.id, f"{TASK_KEY}:{unique_id}")


def running_event(flow_run: FlowRun, node: NodeEvent, position: Position) -> dict[str, Any]:
    """Return the event that shows a node as running."""
    task_run = _task_run(flow_run, node.name, node.unique_id, node.resource_type, position, node.started_at)
    return _event(flow_run, task_run, node.started_at, "RUNNING", "Running", "", 1)


def interrupted_event(flow_run: FlowRun, node: NodeEvent, position: Position, is_meant: bool = False) -> dict[str, Any]:
    """Return the event that shows that a node was cut off in its work, because dbt was stopped or killed.

    Args:
        is_meant: it was this run that stopped dbt, so that nothing crashed.
    """
    now = datetime.now(UTC)
    task_run = _task_run(flow_run, node.name, node.unique_id, node.resource_type, position, node.started_at)
    task_run["end_time"] = now.isoformat()
    task_run["total_run_time"] = max(0.0, (now - node.started_at).total_seconds())
    message = "Cut off: dbt was stopped before this node had ended."
    state_type = "CANCELLED" if is_meant else "CRASHED"
    return _event(flow_run, task_run, now, state_type, "Interrupted", message, 1)


def finished_event(
    flow_run: FlowRun, result: NodeResult, position: Position, tests: Sequence[NodeResult] = ()
) -> dict[str, Any]:
    """Return the event that shows how a node ended, with its true start and end.

    Args:
        tests: those of it that have ended. A model whose tests failed was built, and must not look good.
    """
    state_type, state_name = ("COMPLETED", "Reused") if result.is_reused else _STATES[result.outcome]
    task_run = _task_run(flow_run, result.name, result.unique_id, result.resource_type, position, result.started_at)
    task_run["end_time"] = result.finished_at.isoformat()
    task_run["total_run_time"] = result.seconds
    # A second event for the same end, sent when dbt says why, must be the later one.
    occurred = result.finished_at + timedelta(microseconds=1 if result.message else 0)
    message = _message(result)
    if tests and result.outcome in ("succeeded", "warned"):
        worst = next((found for found in ("failed", "warned") if any(test.outcome == found for test in tests)), "")
        state_type, state_name = (_STATES[worst][0], f"Tests {worst}") if worst else (state_type, state_name)
        occurred = max(occurred, *(test.finished_at for test in tests)) + timedelta(microseconds=len(tests))
        message = tests_sentence(tests)
    return _event(flow_run, task_run, occurred, state_type, state_name, message, result.attempts)


def tests_sentence(tests: Sequence[NodeResult]) -> str:
    """Return how the tests of a model ended, those that failed first, as in "2 of 5 tests failed: unique_id, …"."""
    parts = list[str]()
    for outcome, verb in (("failed", "failed"), ("warned", "warned"), ("skipped", "did not run")):
        if found := [test for test in tests if test.outcome == outcome]:
            of = f"{len(found)} of {len(tests)} tests" if not parts else str(len(found))
            names = [
                f"{test.name} ({count_of(test.failures, 'row')})" if test.failures else test.name for test in found
            ]
            parts.append(f"{of} {verb}: {preview(names)}")
    return f"{'; '.join(parts) or count_of(len(tests), 'test') + ' passed'}."


def folder_event(flow_run: FlowRun, folder: Folder, parents: Sequence[str], is_over: bool) -> dict[str, Any]:
    """Return the event that shows a folder of nodes: running, or what came of them once dbt is done."""
    name = folder.label() if is_over else folder.name
    task_run = _task_run(flow_run, name, folder.key, "folder", Position(parents), folder.started_at)
    if not is_over:
        return _event(flow_run, task_run, folder.started_at, "RUNNING", "Running", "", 1)
    task_run["end_time"] = folder.finished_at.isoformat()
    task_run["total_run_time"] = max(0.0, (folder.finished_at - folder.started_at).total_seconds())
    # After its start, however short it was.
    occurred = folder.finished_at + timedelta(microseconds=1)
    return _event(flow_run, task_run, occurred, *folder.state(), folder.message(), 1)


def log_document(flow_run: FlowRun, event: DbtEvent, unique_id: str | None) -> dict[str, Any]:
    """Return a log line of dbt, attached to a node's task run; to none where there is no unique id."""
    return {
        "name": "prefect.dbt",
        "level": _LEVELS.get(event.level, 20),
        "message": cut(event.text, _LOG_CHARACTERS, TEXT_LOG),
        "timestamp": event.at.isoformat(),
        "flow_run_id": str(flow_run.id),
        "task_run_id": str(task_run_id(flow_run, unique_id)) if unique_id else None,
    }


def _message(result: NodeResult) -> str:
    if result.message:
        return result.message
    if result.outcome == "skipped":
        return "Not run: something upstream of it failed."
    if result.failures:
        return count_of(result.failures, "row")
    return f"Built {result.relation} as {result.materialized}." if result.relation and not result.is_reused else ""


def _task_run(
    flow_run: FlowRun,
    name: str,
    unique_id: str,
    resource_type: str,
    position: Position,
    started_at: datetime,
) -> dict[str, Any]:
    inputs = {"parents": position.parents} | ({"__parents__": [position.around]} if position.around else {})
    return {
        # Tables of several sources often have one name.
        "name": name_in(unique_id) if resource_type == "source" else name,
        "task_key": TASK_KEY,
        "dynamic_key": unique_id,
        "tags": ["dbt", resource_type],
        "start_time": started_at.isoformat(),
        "expected_start_time": started_at.isoformat(),
        "task_inputs": {
            name: [{"input_type": "task_run", "id": str(task_run_id(flow_run, each))} for each in found]
            for name, found in inputs.items()
        },
    }


def _event(
    flow_run: FlowRun,
    task_run: dict[str, Any],
    occurred: datetime,
    state_type: str,
    state_name: str,
    message: str,
    run_count: int,
) -> dict[str, Any]:
    node_run = task_run_id(flow_run, task_run["dynamic_key"])
    moment = occurred.isoformat()
    return {
        # The same event sent twice, after a lost answer, is recorded once.
        "id": str(uuid5(node_run, f"{state_name}:{moment}:{run_count}")),
        "occurred": moment,
        "event": f"prefect.task-run.{state_name}",
        "resource": {
            "prefect.resource.id": f"prefect.task-run.{node_run}",
            "prefect.resource.name": task_run["name"],
            "prefect.run-count": str(run_count),
            "prefect.state-message": cut(message, 900, TEXT_LOG),
            "prefect.state-name": state_name,
            "prefect.state-timestamp": moment,
            "prefect.state-type": state_type,
            # What tells the server to record the task run from this event.
            "prefect.orchestration": "client",
        },
        "related": [
            {
                "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
                "prefect.resource.role": "flow-run",
                "prefect.resource.name": flow_run.name,
            }
        ],
        "payload": {
            "intended": {"from": None if state_type == "RUNNING" else "RUNNING", "to": state_type},
            "initial_state": None,
            "validated_state": {
                "type": state_type,
                "name": state_name,
                "message": cut(message, 20_000, TEXT_LOG),
                "state_details": {},
                "data": None,
            },
            "task_run": {**task_run, "run_count": run_count},
        },
    }
