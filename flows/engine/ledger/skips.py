"""Why nodes did not run: what each of them waited for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from flows.engine.artifacts.graph import Graph
from flows.engine.artifacts.results import NodeResult
from flows.engine.context.events import NodeEvent
from infrastructure.errors import preview


def skipped_in_silence(
    details: Mapping[str, Mapping[str, Any]], begun: Iterable[str], graph: Graph, at: datetime
) -> list[NodeEvent]:
    """Return what dbt skipped without a line of its log that names it: a model behind an ephemeral one, in dbt 1.

    Args:
        details: dbt's own results by unique id.
        begun: nodes that the log does name.
        at: the end of the command, as no other time of them is known.
    """
    known = set(begun)
    return [
        NodeEvent(unique_id, node.name, node.resource_type, node.materialized, "skipped", at, at)
        for unique_id, entry in details.items()
        if unique_id not in known and entry.get("status") == "skipped" and (node := graph.nodes.get(unique_id))
    ]


def with_causes(results: Iterable[NodeResult], graph: Graph) -> list[NodeResult]:
    """Return results in which a skipped node without a message of its own names what it waited for."""
    nodes = {node.unique_id: node for node in results}
    failed_tests: dict[str, list[str]] = {}
    for unique_id, node in nodes.items():
        if node.outcome == "failed" and unique_id in graph.nodes:
            for model in graph.nodes[unique_id].tests:
                failed_tests.setdefault(model, []).append(unique_id)
    return [
        replace(node, message=_because(causes, nodes))
        if node.outcome == "skipped"
        and not node.message
        and (causes := _causes(node.unique_id, nodes, failed_tests, graph))
        else node
        for node in nodes.values()
    ]


def _because(causes: Iterable[str], nodes: Mapping[str, NodeResult]) -> str:
    return f"Not run: it stands on {preview(sorted(nodes[cause].name for cause in causes))}, which failed."


def _causes(
    skipped: str, nodes: Mapping[str, NodeResult], failed_tests: Mapping[str, list[str]], graph: Graph
) -> set[str]:
    """Return the nearest failures upstream, looking through what was skipped too or never runs by itself."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [skipped]
    while waiting:
        here = waiting.pop()
        for parent in graph.nodes[here].depends_on if here in graph.nodes else ():
            if parent in seen:
                continue
            seen.add(parent)
            found.update(failed_tests.get(parent, ()))
            outcome = nodes[parent].outcome if parent in nodes else None
            if outcome == "failed":
                found.add(parent)
            elif outcome in (None, "skipped"):
                waiting.append(parent)
    return found
