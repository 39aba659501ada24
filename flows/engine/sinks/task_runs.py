"""dbt events as what Prefect's API takes: task-run events and log lines, as plain documents.

Prefect 3 records a task run from the events that its client sends. Here they are posted in batches to the same public
endpoint (`POST /events`), which acknowledges them: no HTTP call per node, and nothing lost when the server is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from flows.engine.artifacts.results import NodeResult
from flows.engine.context.events import DbtEvent, NodeEvent
from flows.engine.context.run_context import FlowRun
from flows.engine.context.state import TEXT_LOG
from infrastructure.plain_text import cut

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


def task_run_id(flow_run: FlowRun, unique_id: str) -> UUID:
    """Return the id of a node's task run; the same for every attempt, so that it reads as one."""
    return uuid5(flow_run.id, f"{TASK_KEY}:{unique_id}")


def running_event(flow_run: FlowRun, node: NodeEvent, parents: Sequence[str]) -> dict[str, Any]:
    """Return the event that shows a node as running."""
    task_run = _task_run(flow_run, node.name, node.unique_id, node.resource_type, parents, node.started_at)
    return _event(flow_run, task_run, node.started_at, "RUNNING", "Running", "", 1)


def interrupted_event(
    flow_run: FlowRun, node: NodeEvent, parents: Sequence[str], is_meant: bool = False
) -> dict[str, Any]:
    """Return the event that shows that a node was cut off in its work, because dbt was stopped or killed.

    Args:
        is_meant: it was this run that stopped dbt, so that nothing crashed.
    """
    now = datetime.now(UTC)
    task_run = _task_run(flow_run, node.name, node.unique_id, node.resource_type, parents, node.started_at)
    task_run["end_time"] = now.isoformat()
    task_run["total_run_time"] = max(0.0, (now - node.started_at).total_seconds())
    message = "Cut off: dbt was stopped before this node had ended."
    state_type = "CANCELLED" if is_meant else "CRASHED"
    return _event(flow_run, task_run, now, state_type, "Interrupted", message, 1)


def finished_event(flow_run: FlowRun, result: NodeResult, parents: Sequence[str]) -> dict[str, Any]:
    """Return the event that shows how a node ended, with its true start and end."""
    state_type, state_name = ("COMPLETED", "Reused") if result.is_reused else _STATES[result.outcome]
    task_run = _task_run(flow_run, result.name, result.unique_id, result.resource_type, parents, result.started_at)
    task_run["end_time"] = result.finished_at.isoformat()
    task_run["total_run_time"] = result.seconds
    # A second event for the same end, sent when dbt says why, must be the later one.
    occurred = result.finished_at + timedelta(microseconds=1 if result.message else 0)
    return _event(flow_run, task_run, occurred, state_type, state_name, _message(result), result.attempts)


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
        return f"{result.failures} rows"
    return ""


def _task_run(
    flow_run: FlowRun,
    name: str,
    unique_id: str,
    resource_type: str,
    parents: Sequence[str],
    started_at: datetime,
) -> dict[str, Any]:
    return {
        "name": name,
        "task_key": TASK_KEY,
        "dynamic_key": unique_id,
        "tags": ["dbt", resource_type],
        "start_time": started_at.isoformat(),
        "expected_start_time": started_at.isoformat(),
        "task_inputs": {
            "parents": [{"input_type": "task_run", "id": str(task_run_id(flow_run, parent))} for parent in parents]
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
