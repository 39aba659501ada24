"""What a command was to run, and what it has left undone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from flows.engine.artifacts.manifest import DATA_TYPES, TEST_TYPES, Manifest
from flows.engine.artifacts.results import NodeResult, Stopped
from flows.engine.context.command import DbtCommand
from flows.engine.context.events import CUT_OFF, HOOK, NOT_RUN, name_in
from flows.engine.ledger.attempt import Attempt
from flows.engine.ledger.skips import with_causes
from infrastructure.errors import preview

# What each command runs when it is given no selection.
_RUNS: Mapping[str, frozenset[str]] = {
    "build": DATA_TYPES | TEST_TYPES | {"function", "saved_query"},
    "run": frozenset({"model"}),
    "seed": frozenset({"seed"}),
    "snapshot": frozenset({"snapshot"}),
    "test": TEST_TYPES,
    "source freshness": frozenset({"source"}),
}


def is_accounted_for(verb: str) -> bool:
    """Say whether a command has nodes of which each has an outcome."""
    return verb in _RUNS


def is_run_by(verb: str, unique_id: str, manifest: Manifest) -> bool:
    """Return whether a command has work for a node: there is none for sources, metrics, ephemeral models and more."""
    node = manifest.nodes.get(unique_id)
    is_inlined = node is not None and node.is_ephemeral
    return not is_inlined and unique_id.partition(".")[0] in _RUNS.get(verb, ())


def has_an_outcome(verb: str, unique_id: str, manifest: Manifest) -> bool:
    """Return whether every dbt says what came of a node that a command has work for; of saved queries, some do not."""
    return is_run_by(verb, unique_id, manifest) and not unique_id.startswith("saved_query.")


def without_their_model(command: DbtCommand, to_run: Iterable[str], attempt: Attempt, manifest: Manifest) -> list[str]:
    """Return the unit tests that a build has left out because it does not build their model, as dbt 1 does."""
    nodes = set(to_run)
    return [
        unique_id
        for unique_id in to_run
        if command.verb == "build"
        and unique_id.startswith("unit_test.")
        and unique_id not in attempt.begun
        and unique_id in manifest.nodes
        and nodes.isdisjoint(manifest.nodes[unique_id].tests)
    ]


def stopped_of(results: Mapping[str, NodeResult], attempt: Attempt, to_run: Mapping[str, str] | None) -> Stopped:
    """Return what was left undone.

    Args:
        results: of all attempts, by unique id.
        attempt: the last one.
        to_run: names of the nodes that were to run, by unique id; None where that is not known.
    """
    done = {
        unique_id for unique_id, node in results.items() if node.outcome != "skipped" and node.resource_type != HOOK
    } - attempt.running
    waiting = [name for key, name in (to_run or {}).items() if key not in attempt.begun and key not in done]
    left = None if attempt.total is None else max(0, attempt.total - len(attempt.begun))
    return Stopped(
        done_count=len(done),
        cut_off=tuple(sorted(attempt.begun[unique_id] for unique_id in attempt.running)),
        hooks=tuple(sorted(attempt.hooks.values())),
        not_begun_count=left if to_run is None else len(waiting),
        not_begun=tuple(waiting),
    )


def unproved(attempt: Attempt, results: Mapping[str, NodeResult], verb: str, manifest: Manifest) -> set[str]:
    """Return the unique ids of nodes that dbt's log calls done and its artifact does not know.

    That a node failed needs no proof: dbt 2.0.0-alpha.4 has no result of a microbatch model that failed.
    """
    if verb == "source freshness":
        return set()
    told = attempt.begun.keys() - attempt.running - attempt.proved
    good = {key for key in told & results.keys() if results[key].outcome in ("succeeded", "warned")}
    return {unique_id for unique_id in good if has_an_outcome(verb, unique_id, manifest)}


def was_to_stop(is_asked: bool, results: Iterable[NodeResult]) -> bool:
    """Say whether a node has failed after which none was to begin, as the run or the project asked for."""
    nodes = list(results)
    is_said = any(node.outcome == "skipped" and "fail_fast" in node.message for node in nodes)
    return is_said or (is_asked and any(node.outcome == "failed" for node in nodes))


@dataclass(frozen=True)
class Reasons:
    """What is known of how a command ended, from which follows why a node has no outcome.

    Attributes:
        is_stopped: by this run.
        because: why, after "the run was stopped"; may be empty.
        is_crashed: dbt ended with an error that is about no node.
        unproved: nodes that dbt's log calls done and its artifact does not know.
        is_fail_fast: a node failed after which none was to begin.
        hooks: names of those that failed.
    """

    is_stopped: bool = False
    because: str = ""
    is_crashed: bool = False
    unproved: Collection[str] = ()
    is_fail_fast: bool = False
    hooks: Sequence[str] = ()

    def of(self, node: NodeResult, manifest: Manifest) -> str:
        """Say why a node has no outcome; empty where what failed before it may be the reason."""
        if node.unique_id in self.unproved:
            return "dbt's log calls it done, and run_results.json says nothing of it: nothing proves what was done."
        if node.status == CUT_OFF:
            by = f"the run was stopped{self.because}" if self.is_stopped else "dbt ended before it had ended"
            return f"Cut off in its work: {by}."
        if self.is_stopped:
            return f"Not run: the run was stopped{self.because}, before its turn came."
        if manifest.nodes and node.unique_id not in manifest.nodes:
            return "Not run: it is not in the project any more, or disabled."
        return ""

    def at_last(self) -> str:
        """Say why a node has no outcome where nothing that failed before it is the reason."""
        if self.is_fail_fast:
            return "Not run: a node had failed, and none was to begin after that (fail_fast)."
        if self.hooks:
            return f"Not run: {preview(self.hooks)} failed before its turn came."
        if self.is_crashed:
            return "Not run: dbt ended before its turn came."
        return "Not run: dbt was to run it, and left no outcome of it."


def untold(
    to_run: Iterable[str],
    results: Mapping[str, NodeResult],
    running: Collection[str],
    manifest: Manifest,
    reasons: Reasons,
) -> dict[str, NodeResult]:
    """Return a result, with the reason, for each node that dbt left without one.

    Args:
        running: the nodes that had begun and did not end.
    """
    now = datetime.now(UTC)
    left: dict[str, NodeResult] = {}
    for unique_id in dict.fromkeys([*to_run, *sorted(running)]):
        if unique_id in results and unique_id not in running:
            continue
        node = NodeResult(
            unique_id=unique_id,
            name=name_in(unique_id, manifest.nodes),
            resource_type=unique_id.partition(".")[0],
            materialized=known.materialized if (known := manifest.nodes.get(unique_id)) else "",
            status=CUT_OFF if unique_id in running else NOT_RUN,
            started_at=now,
            finished_at=now,
            attempts=results[unique_id].attempts if unique_id in results else 0,
        )
        left[unique_id] = replace(node, message=reasons.of(node, manifest))
    found = {node.unique_id: node for node in with_causes({**results, **left}.values(), manifest)}
    return {key: replace(found[key], message=found[key].message or reasons.at_last()) for key in left}


def names_of(unique_ids: Iterable[str], manifest: Manifest) -> dict[str, str]:
    """Return what people call these nodes, by unique id."""
    return {unique_id: name_in(unique_id, manifest.nodes) for unique_id in unique_ids}


def run_by(verb: str, manifest: Manifest) -> list[str]:
    """Return all nodes of a project that a command without a selection runs."""
    return [unique_id for unique_id in manifest.nodes if has_an_outcome(verb, unique_id, manifest)]
