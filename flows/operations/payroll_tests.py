"""Whether every test that payroll rests on ran and passed; a test that nobody heard of again counts as failed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson

from flows.engine.graph import Graph, Node
from flows.engine.results import NodeResult
from infrastructure.errors import ConfigError

_TESTS = frozenset({"test", "unit_test"})
PASSED, WARNED, FAILED, SKIPPED = "passed", "warned", "failed", "was skipped"
NOT_RUN, SWITCHED_OFF = "did not run", "is switched off"
_OUTCOMES = {"succeeded": PASSED, "warned": WARNED, "failed": FAILED, "skipped": SKIPPED}


@dataclass(frozen=True)
class Verdict:
    """What came of one test.

    Attributes:
        failures: rows that it found; None where it did not say.
    """

    unique_id: str
    name: str
    outcome: str
    is_critical: bool
    failures: int | None = None

    @property
    def stops(self) -> bool:
        """Return whether payroll must not go on: for whatever is not a pass, but a warning that is not critical."""
        return self.outcome != PASSED and not (self.outcome == WARNED and not self.is_critical)

    def __str__(self) -> str:
        rows = f" ({self.failures:,} rows)" if self.failures else ""
        return f"{'critical test' if self.is_critical else 'test'} {self.name} {self.outcome}{rows}"


def confirmed(
    graph: Graph, about: Collection[str], results: Iterable[NodeResult], switched_off: Iterable[str] = ()
) -> list[Verdict]:
    """Hold every test of some nodes against what came of it, those first that stop payroll.

    Args:
        graph: of the run that is judged; it says which tests there are.
        about: unique ids of what payroll is made of.
        switched_off: names of tests of these nodes that the project has disabled.
    """
    came = {result.unique_id: result for result in results}
    found = [_verdict(node, came) for node in tests_of(graph, about)]
    found += [Verdict(name, name, SWITCHED_OFF, is_critical=True) for name in switched_off]
    return sorted(found, key=lambda verdict: (not verdict.stops, verdict.outcome == PASSED, verdict.name))


def tests_of(graph: Graph, about: Collection[str]) -> list[Node]:
    """Return the tests about these nodes."""
    wanted = set(about)
    return [node for node in graph.nodes.values() if node.resource_type in _TESTS and wanted.intersection(node.tests)]


def switched_off_tests(manifest: Path, names: Collection[str]) -> list[str]:
    """Return the names of disabled tests that refer to nodes of these names, from a manifest.json.

    Raises:
        ConfigError: the manifest can't be read.
    """
    try:
        document = cast(dict[str, Any], orjson.loads(manifest.read_bytes()))
        entries = [entry for group in (document.get("disabled") or {}).values() for entry in group]
    except (OSError, ValueError, AttributeError) as exc:
        raise ConfigError(f"{manifest} is not a dbt manifest. Run payroll again.") from exc
    return sorted(
        entry["name"] for entry in entries if entry.get("resource_type") in _TESTS and _is_about(entry, names)
    )


def _is_about(entry: Mapping[str, Any], names: Collection[str]) -> bool:
    referred = {str(ref.get("name")) for ref in entry.get("refs") or ()} | {str(entry.get("model"))}
    referred.add(str(entry.get("attached_node") or "").rpartition(".")[2])
    return bool(referred.intersection(names))


def _verdict(node: Node, came: Mapping[str, NodeResult]) -> Verdict:
    result = came.get(node.unique_id)
    outcome = _OUTCOMES.get(result.outcome, FAILED) if result else NOT_RUN
    return Verdict(node.unique_id, node.name, outcome, node.is_critical, result.failures if result else None)
