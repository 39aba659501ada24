"""The payroll gate against evidence that is broken in generated ways: whatever is missing of it, nobody is paid."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.engine.artifacts.manifest_file import manifest_of
from flows.engine.artifacts.results import NodeResult
from flows.engine.context.events import SUCCEEDED, WARNED
from flows.runbook.payroll.gate import MODELS, GatedBuild, against
from flows.runbook.payroll.payments import Compared, Payment, Payments, checksum_of

CASES = int(os.environ.get("TRIBUTARY_TEST_CASES", "150"))
SINCE = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHECKED_AT = SINCE - timedelta(minutes=1)
PAYMENTS, MUSICIANS, CONCERTS, RECONCILIATION = (f"model.orchestra.{name}" for name in MODELS)
# In the ways in which people write it, in the places that dbt keeps it in.
MARKS = [
    *({"config": {"meta": {"critical": mark}}} for mark in (True, "true", "True", "YES", "on", 1, "very")),
    {"config": {}, "meta": {"critical": True}},
    {"config": {"tags": ["critical"]}},
    {"config": {}, "tags": ["nightly", "critical"]},
]
NO_MARKS = [{"config": {}}, *({"config": {"meta": {"critical": mark}}} for mark in (False, None, "false", "No", 0, ""))]


@dataclass
class Evidence:
    """All that the gate is given, to be broken."""

    manifest: dict[str, Any]
    results: dict[str, NodeResult]
    loaded_at: dict[str, datetime]
    payments: list[Payment]
    compared: list[Compared]
    freshness_hours: float = 24.0
    since: datetime = SINCE
    # The part of the evidence that payroll needs: unique ids of data and of tests; tests by what they prove.
    data: list[str] = field(default_factory=list[str])
    tests: list[str] = field(default_factory=list[str])
    critical: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def stops(self) -> list[str]:
        """Return what the gate says."""
        rows = Payments(7, tuple(self.payments), checksum_of(self.payments))
        built = GatedBuild(manifest_of(self.manifest), list(self.results.values()), self.since)
        return against(built, self.loaded_at, CHECKED_AT, self.freshness_hours, rows, self.compared)


class Builder:
    """A dbt build that is made up: a manifest, and what came of each node, one after the other."""

    def __init__(self) -> None:
        self.manifest: dict[str, Any] = {"nodes": {}, "sources": {}, "unit_tests": {}, "disabled": {}}
        self.results: dict[str, NodeResult] = {}
        self._at = SINCE

    def add(self, unique_id: str, before: list[str], status: str = "success", **entry: Any) -> None:
        kind, name = unique_id.split(".")[0], unique_id.split(".")[-1]
        section = {"source": "sources", "unit_test": "unit_tests"}.get(kind, "nodes")
        said = {"name": name, "resource_type": kind, "depends_on": {"nodes": before}, "config": {}, **entry}
        self.manifest[section][unique_id] = said
        if kind != "source":
            begun, self._at = self._at, self._at + timedelta(seconds=1)
            self.results[unique_id] = NodeResult(unique_id, name, kind, "table", status, begun, self._at)


@st.composite
def houses(draw: st.DrawFn) -> Evidence:
    """Make up a project whose payroll may go on, with things in it that are none of payroll's business."""
    made = Builder()
    sources = [f"source.orchestra.office.t{number}" for number in range(draw(st.integers(1, 3)))]
    for source in sources:
        made.add(source, [])
    layers = [f"model.orchestra.layer_{number}" for number in range(draw(st.integers(1, 3)))]
    for number, layer in enumerate(layers):
        before = draw(st.lists(st.sampled_from([*sources, *layers[:number]]), min_size=1, unique=True))
        made.add(layer, before, config={"materialized": "table"})
    made.add(PAYMENTS, [layers[-1], sources[0]])
    for name in (MUSICIANS, CONCERTS):
        made.add(name, [draw(st.sampled_from([*sources, *layers]))])
    made.add(RECONCILIATION, [PAYMENTS, draw(st.sampled_from(sources))])
    upstream = sorted({layers[-1], sources[0]})
    parts = {"payments": [PAYMENTS], "upstream": upstream, "reconciliation": [RECONCILIATION]}
    critical: dict[str, list[str]] = {}
    for part, about in parts.items():
        ids = [f"test.orchestra.{part}_{number}" for number in range(draw(st.integers(1, 2)))]
        for test in ids:
            made.add(test, [draw(st.sampled_from(about))], "pass", **draw(st.sampled_from(MARKS)))
        critical[part] = ids
    others = [f"test.orchestra.other_{number}" for number in range(draw(st.integers(0, 3)))]
    for test in others:
        about = draw(st.sampled_from([*layers, *sources, MUSICIANS, PAYMENTS]))
        made.add(test, [about], draw(st.sampled_from(["pass", "warn"])), **draw(st.sampled_from(NO_MARKS)))
    made.add("model.orchestra.elsewhere", [], draw(st.sampled_from(["success", "error", "skipped"])))
    made.add("test.orchestra.not_ours", ["model.orchestra.elsewhere"], "fail", **draw(st.sampled_from(MARKS)))
    off = {"name": "off", "resource_type": "test", "refs": [{"name": "elsewhere"}]}
    made.manifest["disabled"] = draw(st.sampled_from([{}, {"off": [off]}]))
    pay = [
        _payment(number, cents)
        for number, cents in enumerate(draw(st.lists(st.integers(0, 10**9), min_size=1, max_size=4)))
    ]
    compared = [draw(st.sampled_from(_beside(row))) for row in pay]
    loaded_at = {source: CHECKED_AT - timedelta(minutes=draw(st.integers(-5, 24 * 60))) for source in sources}
    nodes = made.manifest["nodes"]
    reached = _upstream(made.manifest, [PAYMENTS, MUSICIANS, CONCERTS, RECONCILIATION])
    data = sorted(each for each in reached if each in nodes)
    # What payroll does not stand on may be in any state.
    sources_read = {each for each in reached if each.startswith("source.")}
    tests = [
        each for each in nodes if each.startswith("test.") and reached.intersection(nodes[each]["depends_on"]["nodes"])
    ]
    return Evidence(
        made.manifest,
        made.results,
        {source: at for source, at in loaded_at.items() if source in sources_read},
        pay,
        compared,
        data=data,
        tests=tests,
        critical=critical,
    )


def _upstream(manifest: dict[str, Any], roots: list[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.add(here)
            entry = manifest["nodes"].get(here) or manifest["sources"].get(here)
            waiting += entry["depends_on"]["nodes"]
    return found


def _payment(number: int, cents: int) -> Payment:
    gross, zero = Decimal(cents) / 100, Decimal("0.00")
    return Payment(
        f"k{number}", number, 7, number, "Ann", "Bell", "Ann Bell", None, "Spring", date(2026, 2, 28), "per_service",
        1, 1, 0, 1, gross, zero, gross, True, datetime(2026, 3, 1), gross, None, zero,
    )  # fmt: skip


def _beside(row: Payment) -> list[Compared]:
    assert row.net_amount is not None
    cent = Decimal("0.01")
    return [
        Compared(row.musician_id, "equal", row.net_amount, row.net_amount),
        Compared(row.musician_id, "equal", row.net_amount, row.net_amount + cent),
        Compared(row.musician_id, "not_recorded", row.net_amount, None),
    ]


Break = Callable[[Evidence, st.DataObject], None]


def _one(data: st.DataObject, among: Any) -> Any:
    return data.draw(st.sampled_from(list(among)))


def _break_results(evidence: Evidence, data: st.DataObject) -> None:
    """Nodes that did not run, or ran otherwise, or at another time, or under another name."""
    nodes = [*evidence.data, *evidence.tests]
    marked = [test for tests in evidence.critical.values() for test in tests]
    unique_id = _one(data, nodes)
    result = evidence.results[unique_id]
    may_warn = unique_id in evidence.tests and unique_id not in marked
    good = SUCCEEDED | (WARNED if may_warn else frozenset())
    how = _one(data, ("missing", "status", "earlier", "renamed", "nothing ran", "before its data"))
    if how == "missing":
        del evidence.results[unique_id]
    elif how == "status":
        status = data.draw(
            st.sampled_from(["error", "fail", "skipped", "warn", "partial success", "runtime error", "no-op", ""])
            | st.text(max_size=8)
        )
        evidence.results[unique_id] = replace(result, status="error" if status in good else status)
    elif how == "earlier":
        back = timedelta(days=data.draw(st.integers(1, 400)))
        evidence.results[unique_id] = replace(
            result, started_at=result.started_at - back, finished_at=result.finished_at - back
        )
    elif how == "renamed":
        del evidence.results[unique_id]
        other = f"{unique_id}_{data.draw(st.integers(0, 9))}"
        evidence.results[other] = replace(result, unique_id=other)
    elif how == "nothing ran":
        evidence.results.clear()
    else:
        test = _one(data, marked)
        about = evidence.manifest["nodes"][test]["depends_on"]["nodes"][0]
        if about in evidence.results:
            late = evidence.results[test].finished_at + timedelta(seconds=data.draw(st.integers(1, 99)))
            evidence.results[about] = replace(evidence.results[about], finished_at=late)
        else:
            # A source is not built: its test has not run.
            del evidence.results[test]


def _break_project(evidence: Evidence, data: st.DataObject) -> None:
    """Tests that are deleted, unmarked, narrowed, switched off, renamed or new; models that are gone."""
    nodes = evidence.manifest["nodes"]
    part = _one(data, evidence.critical)
    how = _one(
        data,
        (
            "deleted",
            "all deleted",
            "unmarked",
            "narrowed",
            "unit tests",
            "of nothing",
            "off",
            "renamed",
            "new",
            "no model",
        ),
    )
    if how == "all deleted":
        for test in evidence.tests:
            del nodes[test]
    elif how == "off":
        test = _one(data, evidence.tests)
        (about,) = nodes[test]["depends_on"]["nodes"]
        place = (
            {"sources": [about.split(".")[2:]]}
            if about.startswith("source.")
            else {"refs": [{"name": about.split(".")[-1]}]}
        )
        evidence.manifest["disabled"] = {test: [{"name": test.split(".")[-1], "resource_type": "test", **place}]}
        del nodes[test]
    elif how == "renamed":
        test = _one(data, evidence.tests)
        nodes[f"{test}_anew"] = {**nodes.pop(test), "name": "anew"}
    elif how == "new":
        # One that stands in the project, and that nobody ran.
        nodes["test.orchestra.new"] = copy.deepcopy(nodes[_one(data, evidence.tests)])
    elif how == "no model":
        gone = _one(data, evidence.data)
        del nodes[gone]
    else:
        for test in evidence.critical[part]:
            if how == "deleted":
                del nodes[test]
            elif how == "unmarked":
                nodes[test] = {**nodes[test], "meta": {}, "tags": [], **_one(data, NO_MARKS)}
            elif how == "narrowed":
                nodes[test]["config"] = {**nodes[test]["config"], "where": data.draw(st.text(min_size=1))}
            elif how == "unit tests":
                nodes[test]["resource_type"] = "unit_test"
            else:
                nodes[test]["depends_on"] = {"nodes": ["model.orchestra.elsewhere"]}


def _break_sources(evidence: Evidence, data: st.DataObject) -> None:
    """Sources that nobody knows the age of, that are old, or newer than it is now."""
    how = _one(data, ("unknown", "all unknown", "old", "to come", "no limit"))
    source = _one(data, evidence.loaded_at)
    if how == "unknown":
        del evidence.loaded_at[source]
    elif how == "all unknown":
        evidence.loaded_at.clear()
    elif how == "old":
        evidence.loaded_at[source] = CHECKED_AT - timedelta(hours=24, seconds=data.draw(st.integers(1, 10**8)))
    elif how == "to come":
        evidence.loaded_at[source] = CHECKED_AT + timedelta(minutes=5, seconds=data.draw(st.integers(1, 10**8)))
    else:
        evidence.freshness_hours = data.draw(st.sampled_from([float("nan"), -1.0, -float("inf")]))


def _break_rows(evidence: Evidence, data: st.DataObject) -> None:
    """Payments and comparisons that are missing, there twice, or not about one another."""
    place = data.draw(st.integers(0, len(evidence.payments) - 1))
    row, beside = evidence.payments[place], evidence.compared[place]
    assert row.net_amount is not None
    more = row.net_amount + Decimal(data.draw(st.integers(2, 10**9))) / 100
    broken_rows: dict[str, Payment] = {
        "open": replace(row, is_final=False),
        "nameless": replace(row, full_name=_one(data, (None, ""))),
        "of no concert": replace(row, concert=None),
        "no amount": replace(row, **{_one(data, ("gross_amount", "deductions", "net_amount")): None}),
        "more": replace(row, net_amount=more),
        "more of both": replace(row, net_amount=more, gross_amount=more),
        "less than nothing": replace(row, gross_amount=-more, net_amount=-more),
        "paid twice its gross": replace(row, deductions=-more, net_amount=row.net_amount + more),
    }
    broken_comparisons: dict[str, Compared] = {
        "of another": replace(beside, musician_id=99),
        "of another amount": replace(beside, calculated=more),
        "calculated nothing": replace(beside, calculated=None),
        "recorded another": replace(beside, recorded=more),
        "says otherwise": replace(
            beside, outcome=data.draw(st.text(max_size=9).filter(lambda it: it not in ("equal", "not_recorded")))
        ),
        "says the other": replace(beside, outcome="not_recorded" if beside.outcome == "equal" else "equal"),
    }
    how = _one(
        data,
        (
            "no payments",
            "paid twice",
            "none compared",
            "one not compared",
            "compared twice",
            "a stranger",
            *broken_rows,
            *broken_comparisons,
        ),
    )
    if how in broken_rows:
        evidence.payments[place] = broken_rows[how]
    elif how in broken_comparisons:
        evidence.compared[place] = broken_comparisons[how]
    elif how == "no payments":
        evidence.payments.clear()
    elif how == "paid twice":
        evidence.payments.append(row)
    elif how == "none compared":
        evidence.compared.clear()
    elif how == "one not compared":
        del evidence.compared[place]
    elif how == "compared twice":
        evidence.compared.append(beside)
    else:
        evidence.compared.append(Compared(99, "not_calculated", None, more))


BREAKS: tuple[Break, ...] = (_break_results, _break_project, _break_sources, _break_rows)


def _chosen() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(BREAKS) - 1), min_size=1, unique=True)


@settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(houses(), _chosen(), st.data())
def test_there_is_no_way_through_for_evidence_that_is_broken(
    house: Evidence, chosen: list[int], data: st.DataObject
) -> None:
    assert house.stops() == [], "what is whole goes through: otherwise it would prove nothing that the rest does not"
    # What came of a test is broken before the test is taken away.
    for number in sorted(chosen):
        BREAKS[number](house, data)
    assert house.stops()
