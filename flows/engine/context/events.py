"""dbt's JSON log lines as typed events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, cast

import orjson

from infrastructure.plain_text import plain

# Outcomes of a node, as dbt spells them.
FAILED = frozenset({"error", "fail", "runtime error", "partial success"})
WARNED = frozenset({"warn"})
# In our words, of what dbt says nothing: a node that was to run and did not, and one that was cut off in its work.
NOT_RUN, CUT_OFF = "not run", "cut off"
UNTOLD = frozenset({NOT_RUN, CUT_OFF})
SKIPPED = frozenset({"skipped"}) | UNTOLD
# Not built, because dbt itself found that what stands there is as it would be: known to 1.12, where dbt keeps state.
REUSED = "reused"
SUCCEEDED = frozenset({"success", "pass", "no-op", REUSED})
FINISHED = FAILED | WARNED | SKIPPED | SUCCEEDED
STARTED = "started"
# What dbt calls the statements of on-run-start and on-run-end.
HOOK = "operation"
# The line in which dbt of Tributary's own environment says which nodes it is going to run; see child.py.
SELECTED = "TributarySelected"

# Only these lines end a node: others repeat its last status in their node_info.
_RESULT_LINES = frozenset(
    {
        "LogModelResult",
        "LogTestResult",
        "LogSeedResult",
        "LogSnapshotResult",
        "LogNodeResult",
        "LogNodeNoOpResult",
        "LogFreshnessResult",
        "LogFunctionResult",
        "LogHookEndLine",
        "SkippingDetails",
    }
)
_START_LINES = frozenset({"LogStartLine", "LogHookStartLine"})
# What ends the unique id of a test that has arguments.
_DIGEST = re.compile(r"\.[0-9a-f]{10}$")


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """One node that started or ended.

    Attributes:
        status: "started", or one of FINISHED.
        failures: rows that a test found; None for other nodes.
        total: how many nodes this dbt command runs; None where dbt does not say.
    """

    unique_id: str
    name: str
    resource_type: str
    materialized: str
    status: str
    started_at: datetime
    finished_at: datetime | None = None
    failures: int | None = None
    relation: str | None = None
    thread: str | None = None
    total: int | None = None

    @property
    def at(self) -> datetime:
        """Return when it ended, or began where it has not ended."""
        return self.finished_at or self.started_at

    @property
    def is_hook(self) -> bool:
        """Return whether it is a statement of on-run-start or on-run-end, which every dbt command runs by itself."""
        return self.resource_type == HOOK


class Named(Protocol):
    """What has a name that people use."""

    @property
    def name(self) -> str:
        """Return that name."""
        ...


@dataclass(frozen=True, slots=True)
class DbtEvent:
    """One line that dbt logged.

    Attributes:
        name: dbt's name of the event, such as LogModelResult; empty for a line that is not dbt's JSON.
        level: debug, info, warn or error.
        unique_id: the node that the line is about.
        node: set where the line starts or ends a node.
        data: the event's own fields.
    """

    name: str
    level: str
    text: str
    at: datetime
    unique_id: str | None = None
    node: NodeEvent | None = None
    data: dict[str, Any] | None = None
    invocation_id: str | None = None


def parse_line(line: bytes) -> DbtEvent | None:
    """Read one line of the child's output; a line that is not JSON becomes a plain event, a blank one None."""
    stripped = line.strip()
    if not stripped:
        return None
    if stripped.startswith(b"{"):
        try:
            return _parse(cast(dict[str, Any], orjson.loads(stripped)))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            pass  # JSON of something else, or not in the shape of dbt's: it is shown as it stands.
    return DbtEvent("", "info", plain(stripped.decode("utf-8", "replace")), datetime.now(UTC))


def name_of(unique_id: str, name: object) -> str:
    """Return what people call a node: its name; with its version, as in `dim.v1`, where a model has several."""
    said = str(name or unique_id)
    # model.<package>.<name>.v<version>, and dbt calls each of them by the same name.
    tail = unique_id.split(".", 2)[-1]
    return tail if unique_id.startswith("model.") and tail.startswith(f"{said}.v") else said


def name_in(unique_id: str, nodes: Mapping[str, Named] | None = None) -> str:
    """Return what people call a node, also one that is not among those that are known.

    Of a source of which only the unique id is known, that is source.table.
    """
    if node := (nodes or {}).get(unique_id):
        return node.name
    # model.<package>.<name>, and the name may have dots of its own.
    kind, tail = unique_id.partition(".")[0], unique_id.split(".", 2)[-1]
    if kind == "test":
        return _DIGEST.sub("", tail)
    return tail.rpartition(".")[2] if kind == "unit_test" else tail


def is_of_an_interrupt(event: DbtEvent) -> bool:
    """Say whether a line says nothing but that dbt was interrupted: its traceback, or its error without words."""
    if event.name == "MainStackTrace":
        return event.text.rstrip().endswith("KeyboardInterrupt")
    return event.name == "MainEncounteredError" and event.text.strip() == "Encountered an error:"


def _parse(document: dict[str, Any]) -> DbtEvent:
    info, data = document["info"], document.get("data") or {}
    node_info = data.get("node_info") or {}
    at = _utc(info["ts"])
    name = info["name"]
    if not (isinstance(name, str) and isinstance(info["msg"], str) and isinstance(info["level"], str)):
        raise TypeError("not an event of dbt")
    node: NodeEvent | None = None
    if node_info.get("unique_id") and (name in _RESULT_LINES or name in _START_LINES):
        node = _node(name, data, node_info, at, info.get("thread"))
    return DbtEvent(
        name=name,
        level=info["level"],
        text=plain(info["msg"]),
        at=at,
        unique_id=node_info.get("unique_id") or None,
        node=node,
        data=data,
        invocation_id=info.get("invocation_id"),
    )


def _node(name: str, data: dict[str, Any], node_info: dict[str, Any], at: datetime, thread: str | None) -> NodeEvent:
    status = _status(name, data, node_info)
    started = node_info.get("node_started_at")
    # The result line of a unit test has no start; how long it took, in seconds, stands in the data.
    started_at = _utc(started) if started else at - timedelta(seconds=data.get("execution_time") or 0.0)
    finished = node_info.get("node_finished_at")
    return NodeEvent(
        unique_id=node_info["unique_id"],
        name=plain(name_of(node_info["unique_id"], node_info.get("node_name") or "")).replace("\n", " "),
        resource_type=node_info.get("resource_type") or node_info["unique_id"].partition(".")[0],
        materialized=node_info.get("materialized") or "",
        status=status,
        started_at=started_at,
        finished_at=None if status == STARTED else (_utc(finished) if finished else at),
        failures=data.get("num_failures") if name == "LogTestResult" else None,
        relation=(node_info.get("node_relation") or {}).get("relation_name") or None,
        thread=thread,
        total=data.get("total") or data.get("num_models"),
    )


def _status(name: str, data: dict[str, Any], node_info: dict[str, Any]) -> str:
    if name in _START_LINES:
        return STARTED
    if name == "SkippingDetails":
        return "skipped"
    # For tests and sources the outcome stands in the data: the node_info of a unit test says "None".
    if name in ("LogTestResult", "LogFreshnessResult") and data.get("status"):
        return str(data["status"]).lower()
    return str(node_info.get("node_status") or data.get("status") or "error").lower()


def _utc(text: str) -> datetime:
    # dbt writes the time of an event with a Z, and a node's own times without one; both are UTC.
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
