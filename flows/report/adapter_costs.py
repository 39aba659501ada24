"""What the warehouse reports about a node's cost: rows, bytes, slot time and query id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flows.engine.artifacts.results import NodeResult

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Figures:
    """The figures of one node, None where the warehouse does not give one.

    Attributes:
        query_id: Snowflake's query id or BigQuery's job id, by which its history and bill are searched.
    """

    rows: int | None = None
    bytes_processed: int | None = None
    bytes_billed: int | None = None
    slot_ms: int | None = None
    query_id: str | None = None


def figures_of(node: NodeResult) -> Figures:
    """Return the figures of a node from its adapter's response."""
    response = node.adapter_response
    query_id = response.get("query_id") or response.get("job_id")
    return Figures(
        rows=_count(response.get("rows_affected")),
        bytes_processed=_count(response.get("bytes_processed")),
        bytes_billed=_count(response.get("bytes_billed")),
        slot_ms=_count(response.get("slot_ms")),
        query_id=str(query_id) if query_id else None,
    )


def _count(value: object) -> int | None:
    # Adapters say -1 for what they do not know.
    return value if isinstance(value, int) and value >= 0 else None


def cost_columns(node: NodeResult) -> dict[str, int | str]:
    """Return the further columns of a table of nodes: bytes, slot time and query id, where the warehouse gives them."""
    figures = figures_of(node)
    cells = {
        "bytes processed": figures.bytes_processed,
        "bytes billed": figures.bytes_billed,
        "slot ms": figures.slot_ms,
        "query": figures.query_id,
    }
    return {name: "" if value is None else value for name, value in cells.items()}


def cost_sentence(nodes: Iterable[NodeResult]) -> str:
    """Return a sentence on what the nodes of a command cost together; empty where the warehouse gives no figures."""
    found = [(node, figures_of(node)) for node in nodes]
    parts: list[str] = []
    for what, values in (
        ("processed", [figures.bytes_processed for _, figures in found]),
        ("billed", [figures.bytes_billed for _, figures in found]),
    ):
        known = [value for value in values if value is not None]
        if known:
            parts.append(f"{readable_bytes(sum(known))} {what}")
    slots = [figures.slot_ms for _, figures in found if figures.slot_ms is not None]
    if slots:
        parts.append(f"{sum(slots) / 1000:,.1f} slot seconds")
    if not parts:
        return ""
    most = max(found, key=lambda pair: pair[1].bytes_processed or 0)
    share = f"; most by `{most[0].name}`" if most[1].bytes_processed else ""
    return f"Reported by the warehouse: {', '.join(parts)}{share}."


def readable_bytes(count: int) -> str:
    """Return a number of bytes in a readable unit."""
    size = float(count)
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} {_UNITS[-1]}"
