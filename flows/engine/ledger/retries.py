"""How often what failed for a passing reason is tried again, and what such a try runs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.results import NodeResult
from flows.engine.ledger.failures import is_passing


@dataclass(frozen=True)
class Retries:
    """How often and how patiently to try again what failed for a transient reason.

    Attributes:
        limit: attempts of a node after its first.
        run_limit: dbt commands after the first, whichever nodes they are for.
        budget_seconds: no further attempt begins so long after the first command ended.
        first_delay_seconds: doubled for each further command, with up to a quarter of jitter.
        longest_delay_seconds: where the doubling ends.
    """

    limit: int = 2
    run_limit: int = 5
    budget_seconds: float = 1800.0
    first_delay_seconds: float = 10.0
    longest_delay_seconds: float = 300.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    # Not tenacity: an attempt is another dbt command for other nodes, whose delay is announced and held to budgets.
    def delay_seconds(self, attempt: int) -> float:
        """Return how long to wait before attempt 2, 3, …"""
        delay = min(self.first_delay_seconds * 2 ** (attempt - 2), self.longest_delay_seconds)
        return delay * random.uniform(1.0, 1.25)  # noqa: S311

    def to_try_again(self, results: Iterable[NodeResult], warehouse: str) -> list[str]:
        """Return the unique ids of the nodes that failed for a passing reason and may be tried again."""
        return [node.unique_id for node in results if is_passing(node, warehouse) and node.attempts <= self.limit]


def with_what_they_kept_back(again: Iterable[str], results: Iterable[NodeResult], manifest: Manifest) -> list[str]:
    """Return nodes with those that were skipped or built without them, in the order of the results.

    What also depends on a node that failed for good stays skipped.
    """
    nodes = {node.unique_id: node for node in results}
    chosen = set(again)
    chosen |= {key for key in manifest.built_without(chosen) if key in nodes and nodes[key].outcome != "skipped"}
    for_good = {node.unique_id for node in nodes.values() if node.outcome == "failed"} - chosen
    freed = _kept_back_by(chosen, manifest) - _kept_back_by(for_good, manifest)
    return [
        unique_id
        for unique_id, node in nodes.items()
        if unique_id in chosen or (node.outcome == "skipped" and unique_id in freed)
    ]


def _kept_back_by(failed: Iterable[str], manifest: Manifest) -> set[str]:
    """Return what dbt does not run when these fail: a test keeps back what depends on the models that it tests."""
    roots = set(failed)
    tested = {model for unique_id in roots & manifest.nodes.keys() for model in manifest.nodes[unique_id].tests}
    return manifest.downstream(roots | tested)
