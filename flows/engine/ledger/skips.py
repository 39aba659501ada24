"""Why nodes did not run: what each of them waited for."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from flows.engine.artifacts.artifacts import Details
from flows.engine.artifacts.manifest import Manifest, reach
from flows.engine.artifacts.results import NodeResult
from flows.engine.context.events import NodeEvent
from infrastructure.errors import preview


def told_in_silence(details: Details, begun: Iterable[str], manifest: Manifest, at: datetime) -> list[NodeEvent]:
    """Return what dbt's artifact says of nodes that no line of its log names.

    Such as a model behind an ephemeral one that failed, which dbt 1 skips without a line.

    Args:
        details: dbt's own results by unique id.
        begun: nodes that the log does name.
        at: the end of the command, as no other time of them is known.
    """
    known = set(begun)
    return [
        NodeEvent(unique_id, node.name, node.resource_type, node.materialized, str(entry.get("status")), at, at)
        for unique_id, entry in details.items()
        if unique_id not in known and (node := manifest.nodes.get(unique_id)) and not node.is_ephemeral
    ]


def with_causes(results: Iterable[NodeResult], manifest: Manifest) -> list[NodeResult]:
    """Return results in which a skipped node without a message of its own names what it waited for."""
    nodes = {node.unique_id: node for node in results}
    silent = causes_of(nodes.values(), manifest, {key for key, node in nodes.items() if node.message})
    return [
        replace(node, message=_because(causes, nodes)) if (causes := silent.get(node.unique_id)) else node
        for node in nodes.values()
    ]


def causes_of(
    results: Iterable[NodeResult], manifest: Manifest, without: Container[str] = frozenset[str]()
) -> dict[str, set[str]]:
    """Return, for each skipped node, the failures that it waited for; what waited for none is left out.

    Args:
        without: skipped nodes that are not asked about.
    """
    nodes = {node.unique_id: node for node in results}
    failed_tests = manifest.tests_among(key for key, node in nodes.items() if node.outcome == "failed")
    found = {
        key: _causes(key, nodes, failed_tests, manifest)
        for key, node in nodes.items()
        if node.outcome == "skipped" and key not in without
    }
    return {key: causes for key, causes in found.items() if causes}


def _because(causes: Iterable[str], nodes: Mapping[str, NodeResult]) -> str:
    return f"Not run: it depends on {preview(sorted(nodes[cause].name for cause in causes))}, which failed."


def _causes(
    skipped: str, nodes: Mapping[str, NodeResult], failed_tests: Mapping[str, list[str]], manifest: Manifest
) -> set[str]:
    """Return the nearest failures upstream, looking through what was skipped too or never runs by itself."""

    def onward(here: str) -> Iterable[str]:
        return manifest.before(here) if here not in nodes or nodes[here].outcome == "skipped" else ()

    found = reach(manifest.before(skipped), onward)
    failed = {here for here in found if here in nodes and nodes[here].outcome == "failed"}
    return failed.union(*(failed_tests.get(here, ()) for here in found))
