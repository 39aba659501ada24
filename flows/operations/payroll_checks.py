"""What has to be so before anybody signs: fresh sources, a build, every test passed, agreement to the cent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from flows import tasks
from flows.engine.command import upstream_sources
from flows.engine.graph import Graph, load_graph
from flows.engine.results import DbtResult
from flows.operations.payroll_data import (
    CONCERTS,
    MUSICIANS,
    PAYMENTS,
    RECONCILIATION,
    Difference,
    Payments,
    faults,
    read_differences,
    read_payments,
)
from flows.operations.payroll_tests import Verdict, confirmed, switched_off_tests
from flows.operations.tables import open_tables
from infrastructure.errors import DbtRunFailed, PayrollStopped, TributaryError

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

MODELS = (PAYMENTS, MUSICIANS, CONCERTS)
# What is paid by, and what names it. Its tests are those that have to pass.
SELECT = " ".join(f"+{name}" for name in MODELS)
_DATA = frozenset({"model", "seed", "snapshot"})


@dataclass(frozen=True)
class Checked:
    """What was found, all of it good.

    Attributes:
        loaded_at: when each source table was loaded last, as source.table.
        verdicts: of every test.
        differences: payments that the source has not recorded yet.
    """

    payments: Payments
    loaded_at: Mapping[str, datetime]
    verdicts: Sequence[Verdict]
    differences: Sequence[Difference]


def check_payroll(
    concert_id: int, target: str, profile: Profile, project_dir: str | None, freshness_hours: float
) -> Checked:
    """Check the sources, build, test and compare; call it while the target is held.

    Raises:
        PayrollStopped: names every reason why the concert can't be paid.
        DbtRunFailed: dbt could not run.
    """
    loaded_at = _fresh_sources(target, project_dir, freshness_hours)
    built = _built(target, project_dir)
    graph = load_graph(built.target_path / "manifest.json")
    verdicts = _judged(graph, built)
    stops = [str(verdict) for verdict in verdicts if verdict.stops] + _not_built(graph, built)
    if stops:
        raise _stopped(concert_id, stops)
    # Only what the build above left out: rebuilding the payments would untie them from the tests that they passed.
    tasks.run(target, f"+{RECONCILIATION}", exclude=SELECT, project_dir=project_dir)
    with open_tables(profile) as tables:
        payments = read_payments(tables, graph, concert_id)
        differences = read_differences(tables, graph, concert_id)
    if stops := faults(payments, differences):
        raise _stopped(concert_id, stops)
    return Checked(payments, loaded_at, verdicts, differences)


def too_old(
    graph: Graph, loaded_at: Mapping[str, datetime], freshness_hours: float, now: datetime
) -> tuple[dict[str, datetime], list[str]]:
    """Return when each source table behind payroll was loaded, and why some are not fresh enough.

    Args:
        loaded_at: by unique id; a table that is not in it counts as not fresh.
    """
    models = [
        node.unique_id for node in graph.nodes.values() if node.name in (*MODELS, RECONCILIATION) and node.relation
    ]
    fresh: dict[str, datetime] = {}
    stops: list[str] = []
    for unique_id in sorted(graph.upstream(models)):
        if not unique_id.startswith("source."):
            continue
        name = ".".join(unique_id.split(".")[2:])
        at = loaded_at.get(unique_id)
        if at is None:
            stops.append(f"source {name} has no rows, or nobody can tell when they were loaded")
            continue
        hours = (now - at).total_seconds() / 3600
        if hours > freshness_hours:
            stops.append(f"source {name} was loaded {hours:.1f} h ago, and {freshness_hours:g} h are allowed")
        fresh[name] = at
    if not fresh and not stops:
        stops.append("payroll stands on no source, so nobody can tell how old its data is")
    return fresh, stops


def payroll_nodes(graph: Graph) -> set[str]:
    """Return the unique ids of what the payments are made of and named by."""
    models = {n.unique_id for n in graph.nodes.values() if n.resource_type == "model" and n.name in MODELS}
    upstream = {unique_id for unique_id in graph.upstream(models) if unique_id in graph.nodes}
    return models | {unique_id for unique_id in upstream if graph.nodes[unique_id].resource_type in _DATA}


def _fresh_sources(target: str, project_dir: str | None, freshness_hours: float) -> dict[str, datetime]:
    select = upstream_sources(f"{SELECT} +{RECONCILIATION}")
    try:
        result = tasks.source_freshness(target, select, project_dir=project_dir)
    except DbtRunFailed as exc:
        # A source beyond its own promise is judged below, by payroll's own limit.
        if not isinstance(exc.result, DbtResult):
            raise
        result = exc.result
    graph = load_graph(result.target_path / "manifest.json")
    fresh, stops = too_old(graph, _loaded_at(result), freshness_hours, datetime.now(UTC))
    if stops:
        raise PayrollStopped(
            f"The data behind payroll is too old: {'; '.join(stops)}. Sync the sources, then start payroll again: "
            f"python -m flows pipeline-failure --target {target} says why they were not synced."
        )
    return fresh


def _loaded_at(result: DbtResult) -> dict[str, datetime]:
    """Return when the newest row of each source table was loaded, as far as this very check has found out."""
    path: Path = result.target_path / "sources.json"
    try:
        document = cast(dict[str, Any], orjson.loads(path.read_bytes()))
        if datetime.fromisoformat(document["metadata"]["generated_at"]) < result.started_at:
            return {}
        # A check that broke has no time, and a table without rows one in the year 1.
        found = {
            e["unique_id"]: datetime.fromisoformat(e["max_loaded_at"])
            for e in document["results"]
            if "max_loaded_at" in e
        }
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return {unique_id: at for unique_id, at in found.items() if at.year > 1}


def _built(target: str, project_dir: str | None) -> DbtResult:
    try:
        return tasks.build(target, SELECT, project_dir=project_dir)
    except DbtRunFailed as exc:
        if not isinstance(exc.result, DbtResult) or not exc.result.nodes:
            raise
        result = exc.result
        graph = load_graph(result.target_path / "manifest.json")
        stops = [str(verdict) for verdict in _judged(graph, result) if verdict.stops] + _not_built(graph, result)
        stopped = PayrollStopped(f"Payroll is stopped: {'; '.join(stops)}. {exc}")
        # Every node that failed is an incident already.
        stopped.is_told = True
        raise stopped from exc


def _judged(graph: Graph, result: DbtResult) -> list[Verdict]:
    about = payroll_nodes(graph)
    names = {graph.nodes[unique_id].name for unique_id in about}
    off = switched_off_tests(result.target_path / "manifest.json", names)
    return confirmed(graph, about, result.nodes, off)


def _not_built(graph: Graph, result: DbtResult) -> list[str]:
    came = {node.unique_id: node.outcome for node in result.nodes}
    return [
        f"{node.resource_type} {node.name} {came.get(unique_id, 'was not built')}"
        for unique_id in sorted(payroll_nodes(graph))
        if (node := graph.nodes[unique_id]).materialized != "ephemeral" and came.get(unique_id) != "succeeded"
    ]


def _stopped(concert_id: int, reasons: Sequence[str]) -> TributaryError:
    said = "\n".join(f"- {reason}" for reason in reasons)
    return PayrollStopped(
        f"Payroll of concert {concert_id} is stopped, as {len(reasons)} things stand against it:\n{said}"
    )
