"""What stands against a payroll, by what its own gate has found out; pure functions.

What nobody has found out stands against it too: nothing gets through on evidence that is missing, old or unreadable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import orjson

from flows.engine.artifacts.graph import Graph, Node, graph_of
from flows.engine.artifacts.results import NodeResult
from flows.runbook.payroll.payments import CONCERTS, MUSICIANS, PAYMENTS, RECONCILIATION, Compared, Payments, faults
from infrastructure.errors import ConfigError

# What is paid by, what names it, and what it is compared with.
MODELS = (PAYMENTS, MUSICIANS, CONCERTS, RECONCILIATION)
SELECT = " ".join(f"+{name}" for name in MODELS)
# Clocks of machines differ a little. Data of a later moment than this was not loaded yet, whatever its rows say.
FUTURE = timedelta(minutes=5)

_TESTS = frozenset({"test", "unit_test"})
_BUILT = frozenset({"model", "seed", "snapshot"})
_DATA = _BUILT | {"source"}
PASSED, WARNED, FAILED, SKIPPED = "passed", "warned", "failed", "was skipped"
NOT_RUN, TOO_EARLY, SWITCHED_OFF = "did not run", "ran before its data was built", "is switched off"
_OUTCOMES = {"succeeded": PASSED, "warned": WARNED, "failed": FAILED, "skipped": SKIPPED}


@dataclass(frozen=True)
class GatedBuild:
    """What the build of a gate was made of, and what came of it.

    Attributes:
        graph: of its manifest, which says what there is to build and to test.
        results: of its nodes; one from before `since` is of another build and counts for nothing.
        switched_off: names of disabled tests of what payroll stands on.
    """

    graph: Graph
    results: Sequence[NodeResult]
    since: datetime
    switched_off: Sequence[str] = ()

    @property
    def came(self) -> Mapping[str, NodeResult]:
        """Return what came of the nodes in this very build, by unique id."""
        return {result.unique_id: result for result in self.results if result.started_at >= self.since}


@dataclass(frozen=True)
class GateVerdict:
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


def against(
    built: GatedBuild,
    loaded_at: Mapping[str, datetime],
    checked_at: datetime,
    freshness_hours: float,
    payments: Payments,
    compared: Sequence[Compared],
) -> list[str]:
    """Return every reason why a concert must not be paid: nothing but an empty list lets it be.

    Args:
        loaded_at: when each source table was loaded, by unique id; one that is not in it counts as too old.
        checked_at: when the sources were asked.
        compared: the rows of the reconciliation.
    """
    return [
        *too_old(built.graph, loaded_at, freshness_hours, checked_at)[1],
        *unproven(built),
        *faults(payments, compared),
    ]


def unproven(built: GatedBuild) -> list[str]:
    """Return what the build leaves open: tests that stop payroll, what was not built, what no critical test proves."""
    judged = verdicts(built)
    passed = {verdict.unique_id for verdict in judged if verdict.outcome == PASSED}
    return [
        *(str(verdict) for verdict in judged if verdict.stops),
        *_not_built(built),
        *without_critical_test(built.graph, passed),
    ]


def verdicts(built: GatedBuild) -> list[GateVerdict]:
    """Hold every test of what payroll stands on against what came of it, those first that stop payroll."""
    came = built.came
    found = [_verdict(node, came) for node in tests_of(built.graph)]
    found += [GateVerdict(name, name, SWITCHED_OFF, is_critical=True) for name in built.switched_off]
    return sorted(found, key=lambda verdict: (not verdict.stops, verdict.outcome == PASSED, verdict.name))


def without_critical_test(graph: Graph, passed: Collection[str] | None = None) -> list[str]:
    """Return which of the payments, what they stand on, and the reconciliation no critical test proves.

    A unit test proves the code, and one with a `where` some of the rows, so that neither proves what is paid.

    Args:
        passed: unique ids of the tests that ran and passed; all that there are when None.
    """
    payments = _models(graph, [PAYMENTS])
    parts = {
        f"the payments ({PAYMENTS})": payments,
        "what the payments stand on": _with_upstream(graph, payments) - payments,
        f"the reconciliation ({RECONCILIATION})": _models(graph, [RECONCILIATION]),
    }
    proofs = [
        node
        for node in graph.nodes.values()
        if node.resource_type == "test"
        and node.is_critical
        and not node.where
        and (passed is None or node.unique_id in passed)
    ]
    return [
        f"no critical test of {what} ran and passed on all rows: mark one with `config: {{meta: {{critical: true}}}}`"
        for what, unique_ids in parts.items()
        if not any(unique_ids.intersection(proof.tests) for proof in proofs)
    ]


def too_old(
    graph: Graph, loaded_at: Mapping[str, datetime], freshness_hours: float, now: datetime
) -> tuple[dict[str, datetime], list[str]]:
    """Return when each source table behind payroll was loaded, and why some are not fresh enough.

    Args:
        loaded_at: by unique id; a table that is not in it counts as not fresh.
    """
    fresh: dict[str, datetime] = {}
    stops: list[str] = []
    for unique_id in sorted(_with_upstream(graph, _models(graph, MODELS))):
        if not unique_id.startswith("source."):
            continue
        name = source_name(unique_id)
        at = loaded_at.get(unique_id)
        if at is None:
            stops.append(f"source {name} has no rows, or nobody can tell when they were loaded")
            continue
        hours = (now - at).total_seconds() / 3600
        if now + FUTURE < at:
            stops.append(
                f"source {name} was loaded at {at:%Y-%m-%d %H:%M} UTC by its own account, which is still to come"
            )
        # Asked so that a limit which is no number lets nothing pass.
        elif not hours <= freshness_hours:
            stops.append(f"source {name} was loaded {hours:.1f} h ago, and {freshness_hours:g} h are allowed")
        fresh[name] = at
    if not fresh and not stops:
        stops.append("payroll stands on no source, so nobody can tell how old its data is")
    return fresh, stops


def payroll_nodes(graph: Graph) -> set[str]:
    """Return the unique ids of what payroll stands on: its models, and all data that they are made of."""
    found = _with_upstream(graph, _models(graph, MODELS))
    return {unique_id for unique_id in found if unique_id.partition(".")[0] in _DATA}


def tests_of(graph: Graph) -> list[Node]:
    """Return the tests of what payroll stands on."""
    wanted = payroll_nodes(graph)
    return [node for node in graph.nodes.values() if node.resource_type in _TESTS and wanted.intersection(node.tests)]


def source_name(unique_id: str) -> str:
    """Return what people call a source table."""
    return ".".join(unique_id.split(".")[2:])


def read_built(manifest: Path, results: Sequence[NodeResult], since: datetime) -> GatedBuild:
    """Return what a build was made of, from the manifest that it has left.

    Raises:
        ConfigError: the manifest can't be read.
    """
    try:
        return built_of(cast(dict[str, Any], orjson.loads(manifest.read_bytes())), results, since)
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as exc:
        raise ConfigError(f"{manifest} is not a dbt manifest. Run payroll again.") from exc


def read_loaded_at(sources: Path, since: datetime) -> dict[str, datetime]:
    """Return when the newest row of each source table was loaded, by unique id, from dbt's sources.json.

    Nothing where it is from before `since`, or is none. A table without rows, or whose check broke, is not in it.
    """
    try:
        document = cast(dict[str, Any], orjson.loads(sources.read_bytes()))
        if _moment(document["metadata"]["generated_at"]) < since:
            return {}
        found = {e["unique_id"]: _moment(e["max_loaded_at"]) for e in document["results"] if "max_loaded_at" in e}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    # dbt gives a table without rows a day in the year 1.
    return {unique_id: at for unique_id, at in found.items() if at.year > 1}


def _moment(text: str) -> datetime:
    """Return a moment of dbt's artifacts; dbt leaves out the zone of some, and means UTC."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def built_of(manifest: Mapping[str, Any], results: Sequence[NodeResult], since: datetime) -> GatedBuild:
    """Return the same from a manifest that has been read."""
    graph = graph_of(manifest)
    about = payroll_nodes(graph)
    disabled = [entry for group in (manifest.get("disabled") or {}).values() for entry in group]
    off = sorted(
        str(entry["name"])
        for entry in disabled
        if entry.get("resource_type") in _TESTS and _refers_to(entry, graph, about)
    )
    return GatedBuild(graph, results, since, off)


def _refers_to(entry: Mapping[str, Any], graph: Graph, about: Collection[str]) -> bool:
    """Say whether a disabled test is about one of these: dbt has not worked out what it stands on."""
    names = {graph.nodes[unique_id].name for unique_id in about if unique_id in graph.nodes}
    referred = {str(ref.get("name")) for ref in entry.get("refs") or ()} | {str(entry.get("model"))}
    referred.add(str(entry.get("attached_node") or "").rpartition(".")[2])
    tables = {source_name(unique_id) for unique_id in about if unique_id.startswith("source.")}
    sources = {".".join(map(str, source)) for source in entry.get("sources") or ()}
    return not referred.isdisjoint(names) or not sources.isdisjoint(tables)


def _models(graph: Graph, names: Collection[str]) -> set[str]:
    return {node.unique_id for node in graph.nodes.values() if node.resource_type == "model" and node.name in names}


def _with_upstream(graph: Graph, roots: set[str]) -> set[str]:
    return roots | graph.upstream(roots)


def _verdict(node: Node, came: Mapping[str, NodeResult]) -> GateVerdict:
    result = came.get(node.unique_id)
    outcome = _OUTCOMES.get(result.outcome, FAILED) if result else NOT_RUN
    # A unit test runs before its model, on rows of its own.
    if result and outcome == PASSED and node.resource_type == "test":
        data = [came[unique_id] for unique_id in node.tests if unique_id in came]
        outcome = TOO_EARLY if any(each.finished_at > result.started_at for each in data) else PASSED
    return GateVerdict(node.unique_id, node.name, outcome, node.is_critical, result.failures if result else None)


def _not_built(built: GatedBuild) -> Iterable[str]:
    came, nodes = built.came, built.graph.nodes
    for name in MODELS:
        if not _models(built.graph, [name]):
            yield f"the project has no model {name}"
    for unique_id in sorted(payroll_nodes(built.graph)):
        kind, _, rest = unique_id.partition(".")
        if unique_id not in nodes:
            yield f"{kind} {rest.rpartition('.')[2]} is not in the project"
        elif kind in _BUILT and nodes[unique_id].materialized != "ephemeral":
            outcome = came[unique_id].outcome if unique_id in came else "was not built"
            if outcome != "succeeded":
                yield f"{kind} {nodes[unique_id].name} {outcome}"
