"""Return the reasons why a concert must not be paid, from the evidence of a build: pure functions.

Evidence that is missing, old or unreadable is such a reason, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flows.engine.artifacts.manifest import DATA_TYPES, Manifest, Node
from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.context.events import name_in
from flows.runbook.payroll.payments import CONCERTS, MUSICIANS, PAYMENTS, RECONCILIATION, Compared, Payments, faults
from infrastructure.plain_text import count_of

# The models with the payments, their names, and their comparison with the source.
MODELS = (PAYMENTS, MUSICIANS, CONCERTS, RECONCILIATION)
SELECT = " ".join(f"+{name}" for name in MODELS)
# Clocks of machines differ a little. A load time later than this is wrong, whatever the rows say.
FUTURE = timedelta(minutes=5)

_DATA = DATA_TYPES | {"source"}
PASSED, WARNED, FAILED, SKIPPED = "passed", "warned", "failed", "was skipped"
NOT_RUN, TOO_EARLY, SWITCHED_OFF = "did not run", "ran before its data was built", "is switched off"
_OUTCOMES = {"succeeded": PASSED, "warned": WARNED, "failed": FAILED, "skipped": SKIPPED}


@dataclass(frozen=True)
class GatedBuild:
    """A payroll's build: its graph and its results.

    Attributes:
        manifest: says what there is to build and to test.
        results: of its nodes; a result from before `since` is of another build and does not count.
    """

    manifest: Manifest
    results: Sequence[NodeResult]
    since: datetime

    @property
    def came(self) -> Mapping[str, NodeResult]:
        """Return the results of the nodes in this build, by unique id."""
        return {result.unique_id: result for result in self.results if result.started_at >= self.since}


@dataclass(frozen=True)
class GateVerdict:
    """The verdict on one test.

    Attributes:
        failures: rows that it found; None where it is unknown.
    """

    unique_id: str
    name: str
    outcome: str
    is_critical: bool
    failures: int | None = None

    @property
    def stops(self) -> bool:
        """Return whether it stops payroll: everything does but a pass, and a warning of a test that is not critical."""
        return self.outcome != PASSED and not (self.outcome == WARNED and not self.is_critical)

    def __str__(self) -> str:
        rows = f" ({count_of(self.failures, 'row')})" if self.failures else ""
        return f"{'critical test' if self.is_critical else 'test'} {self.name} {self.outcome}{rows}"


def against(
    built: GatedBuild,
    loaded_at: Mapping[str, datetime],
    checked_at: datetime,
    freshness_hours: float,
    payments: Payments,
    compared: Sequence[Compared],
) -> list[str]:
    """Return every reason why a concert must not be paid: it may be paid only when the list is empty.

    Args:
        loaded_at: when each source table was loaded, by unique id; one that is not in it counts as too old.
        checked_at: when the sources were checked.
        compared: the rows of the reconciliation.
    """
    return [
        *too_old(built.manifest, loaded_at, freshness_hours, checked_at)[1],
        *unproven(built),
        *faults(payments, compared),
    ]


def unproven(built: GatedBuild) -> list[str]:
    """Return what the build does not prove: tests that stop payroll, unbuilt nodes, data without a critical test."""
    judged = verdicts(built)
    passed = {verdict.unique_id for verdict in judged if verdict.outcome == PASSED}
    return [
        *(str(verdict) for verdict in judged if verdict.stops),
        *_not_built(built),
        *without_critical_test(built.manifest, passed),
    ]


def verdicts(built: GatedBuild) -> list[GateVerdict]:
    """Return the verdict on every test of what payroll depends on, with those first that stop payroll."""
    came = built.came
    found = [_verdict(node, came) for node in tests_of(built.manifest)]
    found += [GateVerdict(name, name, SWITCHED_OFF, is_critical=True) for name in _switched_off(built.manifest)]
    return sorted(found, key=lambda verdict: (not verdict.stops, verdict.outcome == PASSED, verdict.name))


def without_critical_test(manifest: Manifest, passed: Collection[str] | None = None) -> list[str]:
    """Return which of the payments, their upstream nodes and the reconciliation no critical test proves.

    A unit test proves the code, and one with a `where` some of the rows, so that neither proves what is paid.

    Args:
        passed: unique ids of the tests that ran and passed; all that there are when None.
    """
    payments = _models(manifest, [PAYMENTS])
    parts = {
        f"the payments ({PAYMENTS})": payments,
        "what the payments depend on": _with_upstream(manifest, payments) - payments,
        f"the reconciliation ({RECONCILIATION})": _models(manifest, [RECONCILIATION]),
    }
    proofs = [
        node
        for node in manifest.nodes.values()
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
    manifest: Manifest, loaded_at: Mapping[str, datetime], freshness_hours: float, now: datetime
) -> tuple[dict[str, datetime], list[str]]:
    """Return when each source table upstream of payroll was loaded, and why some are not fresh enough.

    Args:
        loaded_at: by unique id; a table that is not in it counts as not fresh.
    """
    fresh: dict[str, datetime] = {}
    stops: list[str] = []
    for unique_id in sorted(_with_upstream(manifest, _models(manifest, MODELS))):
        if not unique_id.startswith("source."):
            continue
        name = name_in(unique_id)
        at = loaded_at.get(unique_id)
        if at is None:
            stops.append(f"source {name} has no rows, or their load time is unknown")
            continue
        hours = (now - at).total_seconds() / 3600
        if now + FUTURE < at:
            stops.append(
                f"source {name} was loaded at {at:%Y-%m-%d %H:%M} UTC according to its rows, which is in the future"
            )
        # In this order, a limit of NaN lets nothing pass.
        elif not hours <= freshness_hours:
            stops.append(f"source {name} was loaded {hours:.1f} h ago, and {freshness_hours:g} h are allowed")
        fresh[name] = at
    if not fresh and not stops:
        stops.append("payroll depends on no source, so the age of its data is unknown")
    return fresh, stops


def payroll_nodes(manifest: Manifest) -> set[str]:
    """Return the unique ids of what payroll depends on: its models, and everything upstream of them."""
    found = _with_upstream(manifest, _models(manifest, MODELS))
    return {unique_id for unique_id in found if unique_id.partition(".")[0] in _DATA}


def tests_of(manifest: Manifest) -> list[Node]:
    """Return the tests of what payroll depends on."""
    wanted = payroll_nodes(manifest)
    return [node for node in manifest.nodes.values() if node.is_test and wanted.intersection(node.tests)]


def read_built(result: DbtResult) -> GatedBuild:
    """Return a build from the manifest that it wrote and its results.

    Raises:
        ConfigError: the manifest can't be read.
    """
    return GatedBuild(result.artifacts.manifest, result.nodes, result.started_at)


def read_loaded_at(result: DbtResult) -> dict[str, datetime]:
    """Return when the newest row of each source table was loaded, by unique id, as this very check found it.

    A table without rows, or whose check broke, is not in it.
    """
    ages = result.artifacts.sources(since=result.started_at)
    return {unique_id: age.loaded_at for unique_id, age in ages.items() if age.loaded_at}


def _switched_off(manifest: Manifest) -> list[str]:
    """Return the names of the disabled tests that refer to anything that payroll depends on."""
    about = payroll_nodes(manifest)
    names = {manifest.nodes[unique_id].name for unique_id in about if unique_id in manifest.nodes}
    tables = {name_in(unique_id) for unique_id in about if unique_id.startswith("source.")}
    return sorted(off.name for off in manifest.switched_off if off.names & names or off.sources & tables)


def _models(manifest: Manifest, names: Collection[str]) -> set[str]:
    return {node.unique_id for node in manifest.nodes.values() if node.resource_type == "model" and node.name in names}


def _with_upstream(manifest: Manifest, roots: set[str]) -> set[str]:
    return roots | manifest.upstream(roots)


def _verdict(node: Node, came: Mapping[str, NodeResult]) -> GateVerdict:
    result = came.get(node.unique_id)
    outcome = _OUTCOMES.get(result.outcome, FAILED) if result else NOT_RUN
    # A unit test runs before its model, on rows of its own.
    if result and outcome == PASSED and node.resource_type == "test":
        data = [came[unique_id] for unique_id in node.tests if unique_id in came]
        outcome = TOO_EARLY if any(each.finished_at > result.started_at for each in data) else PASSED
    return GateVerdict(node.unique_id, node.name, outcome, node.is_critical, result.failures if result else None)


def _not_built(built: GatedBuild) -> Iterable[str]:
    came, nodes = built.came, built.manifest.nodes
    for name in MODELS:
        if not _models(built.manifest, [name]):
            yield f"the project has no model {name}"
    for unique_id in sorted(payroll_nodes(built.manifest)):
        kind, _, rest = unique_id.partition(".")
        if unique_id not in nodes:
            yield f"{kind} {rest.rpartition('.')[2]} is not in the project"
        elif kind in DATA_TYPES and not nodes[unique_id].is_ephemeral:
            outcome = came[unique_id].outcome if unique_id in came else "was not built"
            if outcome != "succeeded":
                yield f"{kind} {nodes[unique_id].name} {outcome}"
