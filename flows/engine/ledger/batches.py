"""Models in batches of time: which batches of an earlier run are built, and to which window the rest belongs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.manifest import Node
from flows.engine.context.events import DbtEvent

_BATCH_LINES = frozenset({"LogStartBatch", "LogBatchResult"})
_START = re.compile(r"batch (\S+) of ")
_GOOD = "OK"

# As dbt's batch_results: the start and the end of each batch, by how it ended.
Built = Mapping[str, Mapping[str, Sequence[Sequence[Any]]]]


def batches_told(events: Iterable[DbtEvent], artifacts: Artifacts) -> dict[str, dict[str, Any]]:
    """Return what dbt's lines say of batches, of models of which some are built, in the form of `unbuilt_batches`.

    For a dbt that was killed, whose artifact says nothing.
    """
    lines = [event for event in events if event.name in _BATCH_LINES]
    nodes = artifacts.manifest_if_any.nodes if lines else {}
    built: dict[str, dict[int, bool]] = {}
    firsts: dict[str, tuple[datetime, int]] = {}
    for event in lines:
        node = nodes.get(event.unique_id or "")
        data = event.data or {}
        said = _START.search(str(data.get("description")))
        if node is None or node.batches is None or said is None:
            continue
        try:
            index, total, start = int(data["batch_index"]) - 1, int(data["total_batches"]), _utc(said[1])
        except (ValueError, LookupError):
            continue
        firsts[node.unique_id] = offset(start, node.batches.size, -index), total
        built.setdefault(node.unique_id, {})[index] = data.get("status") == _GOOD
    found: dict[str, dict[str, Any]] = {}
    for unique_id, (first, total) in firsts.items():
        batches = nodes[unique_id].batches
        assert batches is not None
        edges = [offset(first, batches.size, number) for number in range(total + 1)]
        by_outcome: dict[str, Any] = {"successful": [], "failed": []}
        for number in range(total):
            is_built = built[unique_id].get(number, False)
            by_outcome["successful" if is_built else "failed"].append([edges[number], edges[number + 1]])
        if by_outcome["successful"] and by_outcome["failed"]:
            found[unique_id] = by_outcome
    return found


def window_flags(
    nodes: Iterable[Node], unbuilt: Built, at: datetime, built_before: Collection[str], is_full_refresh: bool = False
) -> tuple[str, ...]:
    """Return the flags by which dbt builds the batches of an earlier run, and not those of now; they are for any dbt.

    Args:
        nodes: that are to run.
        unbuilt: what is known of their batches.
        at: when the run began that they belong to.
        built_before: models that were built before that run, so that it was to build their last batches alone.
        is_full_refresh: the command is to begin tables anew, so that of those all batches are built.
    """
    starts: list[datetime] = []
    ends: list[datetime] = []
    for node in nodes:
        if node.batches is None:
            continue
        # The first batch of a full refresh replaces the table, whatever other batches are in it.
        begins_anew = is_full_refresh if node.batches.full_refresh is None else node.batches.full_refresh
        if not begins_anew and (left := (unbuilt.get(node.unique_id) or {}).get("failed")):
            starts.append(min(_utc(start) for start, _ in left))
            ends.append(max(_utc(end) for _, end in left))
            continue
        end = offset(at, node.batches.size, 0)
        end = end if end == at else offset(at, node.batches.size, 1)
        ends.append(end)
        is_later = (node.unique_id in built_before and not begins_anew) or not node.batches.begin
        last_ones = offset(end, node.batches.size, -1 - node.batches.lookback)
        starts.append(last_ones if is_later else _utc(node.batches.begin))
    if not starts:
        return ()
    return (
        "--event-time-start",
        f"{min(starts):%Y-%m-%dT%H:%M:%S}",
        "--event-time-end",
        f"{max(ends):%Y-%m-%dT%H:%M:%S}",
    )


def offset(moment: datetime, size: str, count: int) -> datetime:
    """Return the start of the batch that is so many batches after that of a moment."""
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    match size:
        case "hour":
            return hour + timedelta(hours=count)
        case "day":
            return day + timedelta(days=count)
        case "month":
            years, month = divmod(day.year * 12 + day.month - 1 + count, 12)
            return day.replace(year=years, month=month + 1, day=1)
        case _:
            return day.replace(year=day.year + count, month=1, day=1)


def _utc(moment: str | datetime) -> datetime:
    # dbt names the batch of a year by its year, and that of a month by its month.
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment + {4: "-01-01", 7: "-01"}.get(len(moment), ""))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
