"""Explain what a run would do and why, from the manifest; execute nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.engine.artifacts.fingerprints import Inputs
from flows.engine.artifacts.manifest import TEST_TYPES, Manifest, Node
from flows.engine.changed.decide import Decision

# Operators around the name in a selection: 2+name+3, @name.
_WORD = re.compile(r"^(?P<up>\d*\+|@)?(?P<core>.*?)(?P<down>\+\d*)?$")


@dataclass(frozen=True)
class PlannedNode:
    """One node of a plan.

    Attributes:
        action: what dbt would do with it, such as "rebuild the table".
        reason: why it is in the run.
        step: the earliest place in the order, from 1; nodes of one step do not wait for each other. 0: it does not run.
        path: of the file of its code, from the project's folder.
    """

    unique_id: str
    name: str
    resource_type: str
    action: str
    reason: str
    step: int
    path: str = ""


def plan_of(
    manifest: Manifest, selected: Sequence[str], select: str | None, selector: str | None, full_refresh: bool
) -> list[PlannedNode]:
    """Explain the nodes that dbt selected, in the order in which they would run."""
    chosen = [unique_id for unique_id in selected if unique_id in manifest.nodes]
    steps = manifest.steps(chosen)
    reasons = _reasons(manifest, chosen, select, selector)
    planned = [
        PlannedNode(
            unique_id=unique_id,
            name=manifest.nodes[unique_id].name,
            resource_type=manifest.nodes[unique_id].resource_type,
            action=action_of(manifest.nodes[unique_id], full_refresh),
            reason=reasons[unique_id],
            step=steps[unique_id],
            path=manifest.nodes[unique_id].path,
        )
        for unique_id in chosen
    ]
    return sorted(planned, key=lambda node: (node.step, node.resource_type in TEST_TYPES, node.name))


def plan_of_changes(
    manifest: Manifest, decisions: Sequence[Decision], inputs: Inputs, full_refresh: bool
) -> list[PlannedNode]:
    """Explain what a run with `--changed` does with every node: first those that it builds, in their order."""
    built = [decision.unique_id for decision in decisions if decision.is_built and decision.unique_id in manifest.nodes]
    steps = manifest.steps(built)
    planned: list[PlannedNode] = []
    for decision in decisions:
        node = inputs.nodes[decision.unique_id]
        action = "nothing: it is reused"
        if decision.is_built:
            action = (
                action_of(manifest.nodes[node.unique_id], full_refresh) if node.unique_id in manifest.nodes else "build"
            )
        step = steps.get(node.unique_id, 1) if decision.is_built else 0
        path = manifest.nodes[node.unique_id].path if node.unique_id in manifest.nodes else ""
        planned.append(PlannedNode(node.unique_id, node.name, node.resource_type, action, decision.reason, step, path))
    return sorted(planned, key=lambda node: (node.step == 0, node.step, node.resource_type in TEST_TYPES, node.name))


def action_of(node: Node, full_refresh: bool) -> str:
    """Return what `dbt build` does with a node."""
    if node.resource_type == "unit_test":
        return "test the model's logic on fixed rows"
    if node.resource_type == "test":
        return "test; a failure is a warning" if node.severity == "warn" else "test; a failure stops what is downstream"
    if node.resource_type == "seed":
        return "load the file" if not full_refresh else "drop and load the file"
    if node.resource_type == "snapshot":
        return "record what changed"
    if node.materialized == "incremental":
        return "rebuild from scratch" if full_refresh else "add new rows"
    return {
        "view": "replace the view",
        "table": "rebuild the table",
        "ephemeral": "nothing: it is part of the models that read it",
        "materialized_view": "refresh the materialized view",
    }.get(node.materialized, f"build ({node.materialized})" if node.materialized else "nothing to build")


def _reasons(manifest: Manifest, chosen: Sequence[str], select: str | None, selector: str | None) -> dict[str, str]:
    if selector:
        return dict.fromkeys(chosen, f"in the selector {selector}")
    if not select:
        return dict.fromkeys(chosen, "everything is selected")
    reasons: dict[str, str] = {}
    for word in select.split():
        for unique_id, reason in _reasons_of_word(manifest, word).items():
            reasons.setdefault(unique_id, reason)
    built = {unique_id for unique_id in chosen if manifest.nodes[unique_id].resource_type not in TEST_TYPES}
    return {
        unique_id: reasons.get(unique_id) or _test_reason(manifest, unique_id, built, select) for unique_id in chosen
    }


def _reasons_of_word(manifest: Manifest, word: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for part in word.split(","):
        match = _WORD.match(part)
        if match is None:
            continue
        roots = {node.unique_id for node in manifest.nodes.values() if _matches(node, match["core"])}
        names = match["core"]
        for root in roots:
            found[root] = "selected by name" if manifest.nodes[root].name == names else f"matches {names}"
        if match["up"]:
            for unique_id in manifest.upstream(roots):
                found.setdefault(unique_id, f"upstream of {names}")
        if match["down"] or match["up"] == "@":
            for unique_id in manifest.downstream(roots):
                found.setdefault(unique_id, f"downstream of {names}")
    return found


def _matches(node: Node, core: str) -> bool:
    method, _, value = core.rpartition(":")
    match method:
        case "tag":
            return value in node.tags
        case "resource_type":
            return node.resource_type == value
        case "source":
            return node.resource_type == "source" and (node.fqn.endswith(f".{value}") or f".{value}." in f"{node.fqn}.")
        case "path":
            return node.path.startswith(value.removesuffix("/"))
        case "" | "fqn":
            return node.name == value or f".{value}." in f".{node.fqn}."
        case _:
            return False


def _test_reason(manifest: Manifest, unique_id: str, built: set[str], select: str) -> str:
    node = manifest.nodes[unique_id]
    tested = [manifest.nodes[unique_id].name for unique_id in node.tests if unique_id in built]
    if node.is_test and tested:
        return f"tests {', '.join(tested)}"
    return f"matches {select}"
