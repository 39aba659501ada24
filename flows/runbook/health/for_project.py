"""The thresholds that come with Tributary, fitted to a project that they were not written for: a pure function."""

from __future__ import annotations

from collections.abc import Iterable

from flows.engine.artifacts.manifest import Manifest, Node
from flows.history.health_settings import Health


def for_project(health: Health, manifest: Manifest) -> tuple[Health, tuple[str, ...]]:
    """Return the checks that a project has something for, and the names of those that are left out.

    Selections by tags and names that the project does not have become all its tests, and the tables that nothing in the
    project reads, which are those that people look at.
    """
    nodes = list(manifest.nodes.values())
    asked = health.checks()
    kept = dict(asked)
    tests = [node for node in nodes if node.is_test]
    if not any(node.has_freshness for node in nodes):
        kept.pop("source_freshness", None)
        kept.pop("transformation_lag", None)
    if health.tests:
        if not tests:
            del kept["tests"]
        elif not _selected(nodes, health.tests.select):
            kept["tests"] = health.tests.model_copy(update={"select": "fqn:*"})
    for name in ("scd2_integrity", "reconciliation"):
        check = getattr(health, name)
        if check and not _selected(nodes, check.select):
            del kept[name]
    names = {node.name for node in nodes}
    if health.built_recently and not names.intersection(health.built_recently.models):
        del kept["built_recently"]
    ends = " ".join(sorted(node.name for node in _read_by_people(manifest)))
    for name in ("row_counts", "transformation_lag"):
        check = getattr(health, name)
        if name in kept and check and not _selected([node for node in nodes if node.holds_rows], check.select):
            if ends:
                kept[name] = check.model_copy(update={"select": ends})
            else:
                del kept[name]
    fitted = health.model_copy(update={name: kept.get(name) for name in Health.model_fields})
    return fitted, tuple(name for name in asked if name not in kept)


def _selected(nodes: Iterable[Node], select: str) -> list[Node]:
    """Return the nodes that words of tag:NAME and names of nodes select."""
    words = select.split()
    return [node for node in nodes if node.name in words or any(f"tag:{tag}" in words for tag in node.tags)]


def _read_by_people(manifest: Manifest) -> list[Node]:
    """Return the tables that no other model reads."""
    read = {parent for node in manifest.nodes.values() if node.resource_type == "model" for parent in node.depends_on}
    return [
        node
        for node in manifest.nodes.values()
        if node.holds_rows and node.resource_type == "model" and node.unique_id not in read
    ]
