"""Which nodes the lineage has, and how they are placed and drawn."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

from flows.report.html.drawings import cut_in_the_middle, lineage_drawing, runs_line
from flows.report.html.layout import layered
from flows.report.html.lineage import Lineage, graph_of, read_lineage
from tests.support.history_runs import node

Rows = list[dict[str, Any]]


def model(name: str, *reads: str, outcome: str = "succeeded", **fields: Any) -> dict[str, Any]:
    return node(name, outcome, depends_on=[each if "." in each else f"model.shop.{each}" for each in reads], **fields)


def lineage(rows: Rows, path: Rows | None = None, **options: Any) -> Lineage:
    return read_lineage(graph_of(rows), rows, path or [], **options)


def names(found: Lineage) -> list[str]:
    return [each.name for each in found.nodes]


def edges(found: Lineage) -> dict[tuple[str, str], bool]:
    short = {each.unique_id: each.name for each in found.nodes}
    return {(short[a], short[b]): is_direct for (a, b), is_direct in found.edges.items()}


def test_what_fails_is_drawn_with_what_it_reads_and_what_is_downstream() -> None:
    rows = [
        model("stg", "source.shop.raw.orders"),
        model("far", "stg"),
        model("broken", "far", "source.shop.raw.late", outcome="failed"),
        model("held", "broken", outcome="skipped"),
        model("beyond", "held", outcome="skipped"),
        model("elsewhere", "stg"),
        node("raw.late", "failed", kind="source") | {"unique_id": "source.shop.raw.late", "name": "late"},
    ]
    found = lineage(rows)
    assert names(found) == ["broken", "raw.late", "held", "beyond", "far"], "no siblings, and no grandparents"
    assert edges(found) == {
        ("far", "broken"): True, ("raw.late", "broken"): True, ("broken", "held"): True, ("held", "beyond"): True,
    }  # fmt: skip
    assert (found.left_out, found.nodes[0].parents) == (0, ("model.shop.far", "source.shop.raw.late"))


def test_a_model_whose_test_fails_is_in_trouble_and_tests_and_hooks_are_no_nodes() -> None:
    test = node("unique", "failed", kind="test", tested=["model.shop.a"], depends_on=["model.shop.a"])
    hook = node("end", "failed", kind="operation")
    found = lineage([model("a"), model("b", "a", "test.shop.unique"), test, hook])
    assert [(each.name, each.outcome, each.failing_tests) for each in found.nodes] == [
        ("a", "failed", 1), ("b", "succeeded", 0),
    ]  # fmt: skip
    assert lineage_drawing(found).boxes[0].label == "a: model · 1 test failed · 1.00 s"


def test_what_has_no_row_is_looked_through_and_what_is_not_drawn_is_dashed() -> None:
    # The history of a model has what an ephemeral one reads beside it.
    rows = [model("a"), model("b", "ephemeral", "a"), *(model(f"m{n}", f"m{n - 1}" if n else "b") for n in range(3))]
    rows.append(model("z", "m2", outcome="failed"))
    path = [rows[0], rows[1]]
    found = lineage(rows, path, limit=3)
    assert (names(found), found.left_out) == (["z", "a", "b"], 1)
    assert edges(found) == {("a", "b"): True, ("b", "z"): False}
    drawn = lineage_drawing(found, lambda unique_id: unique_id[-1])
    assert [(line.is_direct, line.is_critical) for line in drawn.lines] == [(True, True), (False, False)]
    assert [box.anchor for box in drawn.boxes] == ["z", "a", "b"]


def test_no_more_is_drawn_than_can_be_looked_at_and_trouble_comes_first() -> None:
    rows = [model("root", outcome="failed"), *(model(f"child_{n}", "root", outcome="skipped") for n in range(500))]
    found = lineage(rows)
    assert (len(found.nodes), found.left_out, found.nodes[0].name) == (40, 461, "root")


def test_a_layout_leads_to_the_right_and_nothing_lies_on_top_of_another() -> None:
    nodes = [f"n{n}" for n in range(40)]
    found = layered(
        nodes, [(a, b) for (x, a), (y, b) in product(enumerate(nodes), repeat=2) if x < y and (x + y) % 7 == 0]
    )
    for (start, end), route in found.routes.items():
        assert (route[0], route[-1]) == (found.places[start], found.places[end])
        assert all(right[0] - left[0] == 1 for left, right in pairwise(route)), "an edge passes each layer"
    by_layer: dict[float, list[float]] = {}
    for layer, height in found.places.values():
        by_layer.setdefault(layer, []).append(height)
    assert all(below - above > 0.999 for heights in by_layer.values() for above, below in pairwise(sorted(heights)))
    assert min(height for route in found.routes.values() for _, height in route) >= 0
    assert found.height == max(height for route in found.routes.values() for _, height in route)


def test_two_chains_do_not_cross_and_a_source_stands_before_what_reads_it() -> None:
    found = layered(["a", "b", "c", "x", "y", "z", "s"], [("a", "b"), ("b", "c"), ("x", "y"), ("y", "z"), ("s", "z")])
    first, second = ([found.places[each][1] for each in chain] for chain in ("abc", "xyz"))
    assert len({a < b for a, b in zip(first, second, strict=True)}) == 1
    assert found.places["s"][0] == 1


def test_a_circle_in_a_damaged_history_is_drawn_all_the_same() -> None:
    found = lineage([model("a", "b", outcome="failed"), model("b", "a"), model("c", "c", outcome="failed")])
    assert sorted(names(found)) == ["a", "b", "c"]
    assert len(lineage_drawing(found).boxes) == 3


def test_nothing_is_drawn_of_nothing() -> None:
    assert lineage([]).nodes == lineage_drawing(lineage([])).boxes == []
    assert runs_line([{"seconds": 1.0, "outcome": "failed"}]) is None


def test_a_long_name_is_cut_in_the_middle() -> None:
    assert cut_in_the_middle("short") == "short"
    cut = cut_in_the_middle("int_campaign_performance_by_channel_and_week")
    assert (len(cut), cut) == (27, "int_campaign_…nnel_and_week")


def test_the_line_of_runs_has_a_dot_for_each_that_did_not_go_well_and_for_the_last() -> None:
    line = runs_line(
        [{"seconds": float(n), "outcome": outcome} for n, outcome in enumerate(["succeeded", "failed", "succeeded"])]
    )
    assert line
    assert [colour for _, _, colour in line.dots] == ["var(--bad)", "var(--accent)"]
