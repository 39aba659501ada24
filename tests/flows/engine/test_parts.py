"""A DAG is split into parts that can be built one after the other, each node in one of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.engine.artifacts.graph import Graph, graph_of
from flows.engine.parts import ACROSS, NO_DOMAIN, Split, domain_by, split
from infrastructure.errors import ConfigError


def graph(nodes: dict[str, tuple[str, list[str]]]) -> Graph:
    """Make a graph of {name: (group, parents)}; a name that begins with test_ is a test of its parents."""

    def node(name: str, group: str, parents: list[str]) -> dict[str, Any]:
        kind = "test" if name.startswith("test_") else "model"
        return {
            "name": name,
            "resource_type": kind,
            "fqn": ["shop", group, name],
            "depends_on": {"nodes": parents},
            "config": {"materialized": kind if kind == "test" else "table", "group": group or None},
            "original_file_path": f"models/marts/{group}/{name}.sql" if group else f"models/{name}.sql",
            "tags": [group, "daily"],
        }

    return graph_of({"nodes": {name: node(name, group, parents) for name, (group, parents) in nodes.items()}})


def parts_of(nodes: dict[str, tuple[str, list[str]]], by: str = "group") -> Split:
    return split(graph(nodes), nodes, domain_by(by))


SHOP: dict[str, tuple[str, list[str]]] = {
    "orders": ("sales", []),
    "people": ("staff", []),
    "pay": ("staff", ["people"]),
    "report": ("board", ["orders", "pay"]),
    "test_orders": ("", ["orders"]),
    "test_report_has_orders": ("", ["report", "orders"]),
    "test_people_sold": ("", ["people", "orders"]),
}


@pytest.mark.parametrize("by", ["group", "folder", "tag:sales,staff,board"])
def test_a_domain_is_a_part_and_its_tests_are_in_it(by: str) -> None:
    found = parts_of(SHOP, by)
    assert [(part.name, part.nodes, part.after, part.wave) for part in found.parts] == [
        ("sales", ("orders", "test_orders"), (), 0),
        ("staff", ("people", "pay"), (), 0),
        (ACROSS, ("test_people_sold",), ("sales", "staff"), 1),
        ("board", ("report", "test_report_has_orders"), ("sales", "staff"), 1),
    ]
    # orders → report, pay → report, orders → its test in board, and both edges of the test across.
    assert (found.cut, found.edges, found.waves) == (5, 8, 2)


def test_domains_that_stand_on_each_other_are_cut_where_the_way_leads_back() -> None:
    found = parts_of(
        {
            "a": ("sales", []),
            "b": ("staff", ["a"]),
            "c": ("sales", ["b"]),
            "d": ("sales", ["a"]),
            "e": ("board", ["c"]),
        }
    )
    assert [(part.name, part.nodes, part.after) for part in found.parts] == [
        ("sales 1", ("a", "d"), ()),
        ("staff 2", ("b",), ("sales 1",)),
        ("sales 3", ("c",), ("staff 2",)),
        ("board", ("e",), ("sales 3",)),
    ]


def test_what_has_no_domain_is_a_part_too_and_sources_are_in_none() -> None:
    found = split(
        graph_of(
            {
                "nodes": graph_entries(),
                "sources": {"source.s": {"name": "s", "resource_type": "source", "fqn": ["shop", "s"]}},
            }
        ),
        ["source.s", "model.a"],
        domain_by("group"),
    )
    assert [(part.name, part.nodes) for part in found.parts] == [(NO_DOMAIN, ("model.a",))]


def graph_entries() -> dict[str, Any]:
    return {
        "model.a": {
            "name": "a",
            "resource_type": "model",
            "fqn": ["shop", "a"],
            "depends_on": {"nodes": ["source.s"]},
            "config": {},
        }
    }


def test_a_way_to_split_that_there_is_not_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match=r"can't be split by 'owner'\. Give group, folder, or tags"):
        domain_by("owner")


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", ""]), st.booleans(), st.sets(st.integers(0, 30), max_size=4)),
        max_size=30,
    )
)
def test_every_node_is_in_one_part_and_comes_after_what_it_is_built_from(
    rows: list[tuple[str, bool, set[int]]],
) -> None:
    names = [f"test_{number}" if is_test else f"m{number}" for number, (_, is_test, _) in enumerate(rows)]
    nodes = {
        names[number]: (group, [names[p] for p in sorted(above) if p < number and not names[p].startswith("test_")])
        for number, (group, _, above) in enumerate(rows)
    }
    found = parts_of(nodes)
    assert sorted(key for part in found.parts for key in part.nodes) == sorted(nodes)
    place = {key: part for part in found.parts for key in part.nodes}
    before: dict[str, set[str]] = {}
    for part in found.parts:
        # Every part that it waits for came earlier, so that there is an order.
        assert set(part.after) <= before.keys()
        before[part.name] = set(part.after).union(*(before[other] for other in part.after))
    for key, (_, above) in nodes.items():
        for parent in above:
            assert place[parent] is place[key] or place[parent].name in before[place[key].name]
