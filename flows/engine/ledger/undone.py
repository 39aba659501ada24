"""What a command that was ended before its end has left undone."""

from __future__ import annotations

from collections.abc import Mapping

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.manifest import DATA_TYPES, TEST_TYPES, Manifest
from flows.engine.artifacts.results import NodeResult, Stopped
from flows.engine.context.events import HOOK
from flows.engine.ledger.attempt import Attempt

# What each command runs when it is given no selection.
_RUNS: Mapping[str, frozenset[str]] = {
    "build": DATA_TYPES | TEST_TYPES | {"function", "saved_query"},
    "run": frozenset({"model"}),
    "seed": frozenset({"seed"}),
    "snapshot": frozenset({"snapshot"}),
    "test": TEST_TYPES,
}


def stopped_of(verb: str, results: Mapping[str, NodeResult], attempt: Attempt, artifacts: Artifacts) -> Stopped:
    """Return what was left undone.

    Args:
        results: of all attempts, by unique id.
        attempt: the last one.
        artifacts: of the last one.
    """
    done = {
        unique_id for unique_id, node in results.items() if node.outcome != "skipped" and node.resource_type != HOOK
    } - attempt.running
    left = None if attempt.total is None else max(0, attempt.total - len(attempt.begun))
    # dbt does not name the nodes that it was to run. They are known where it was to run all there are.
    waiting = [
        name
        for unique_id, name in (_all_of(verb, artifacts.manifest_if_any) if left else {}).items()
        if unique_id not in attempt.begun and unique_id not in done
    ]
    return Stopped(
        done_count=len(done),
        cut_off=tuple(sorted(attempt.begun[unique_id] for unique_id in attempt.running)),
        hooks=tuple(sorted(attempt.hooks.values())),
        not_begun_count=left,
        not_begun=tuple(waiting) if len(waiting) == left else (),
    )


def is_run_by(verb: str, unique_id: str, manifest: Manifest) -> bool:
    """Return whether a command has work for a node: there is none for sources, metrics, ephemeral models and more."""
    node = manifest.nodes.get(unique_id)
    return not (node and node.is_ephemeral) and unique_id.partition(".")[0] in _RUNS.get(verb, ())


def _all_of(verb: str, manifest: Manifest) -> dict[str, str]:
    return {node.unique_id: node.name for node in manifest.nodes.values() if is_run_by(verb, node.unique_id, manifest)}
