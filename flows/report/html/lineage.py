"""The lineage of what is failing and of what is slow: which nodes, and what reads what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.engine.artifacts.manifest import DATA_TYPES, TEST_TYPES, reach

if TYPE_CHECKING:
    import networkx

SHOWN_NODES = 40
KINDS = DATA_TYPES | {"source"}
_BAD = ("failed", "warned")


@dataclass(frozen=True)
class LineageNode:
    """A model, seed, snapshot or source of the lineage.

    Attributes:
        outcome: its own; that of its tests where one of them is worse; None for a source that was never checked.
        seconds: of its last run.
        is_on_path: whether the last run waited for it: the critical path.
        failing_tests: how many of its tests fail or warn.
        parents, children: unique ids, as in the project, drawn or not.
    """

    unique_id: str
    name: str
    kind: str
    outcome: str | None
    seconds: float | None
    is_on_path: bool
    failing_tests: int
    parents: tuple[str, ...]
    children: tuple[str, ...]


@dataclass(frozen=True)
class Lineage:
    """What is drawn.

    Attributes:
        edges: from what is read to what reads it, and whether there is nothing between them that is not drawn.
        path: unique ids of the critical path, in order; drawn or not.
        left_out: how many more there would be.
    """

    nodes: Sequence[LineageNode]
    edges: Mapping[tuple[str, str], bool]
    path: Sequence[str]
    left_out: int


def graph_of(latest: Iterable[Mapping[str, Any]]) -> networkx.DiGraph[str]:
    """Return what reads what among models, seeds, snapshots and sources, from the last result of every node."""
    import networkx

    rows = {row["unique_id"]: row for row in latest if row["resource_type"] in KINDS}
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(rows)
    for unique_id, row in rows.items():
        # A source need not have a result of its own; what else has none, such as an ephemeral model, is looked through:
        # the history has what it reads beside it.
        read = (each for each in row["depends_on"] or () if each in rows or each.startswith("source."))
        graph.add_edges_from((each, unique_id) for each in read)
    return graph


def read_lineage(
    graph: networkx.DiGraph[str],
    latest: Sequence[Mapping[str, Any]],
    critical_path: Iterable[Mapping[str, Any]],
    slower: Iterable[str] = (),
    limit: int = SHOWN_NODES,
) -> Lineage:
    """Return what fails or warns with its parents and what is downstream, what got slower, and the critical path.

    Args:
        slower: unique ids of the models that got slower.
        limit: the most that is drawn: what is in trouble first, then what is slow, then what is nearest to trouble.
    """
    tests = trouble_of_tests(latest)
    rows = {row["unique_id"]: row for row in latest}
    outcomes = {key: worst([(rows.get(key) or {}).get("outcome"), *tests.get(key, ())]) for key in graph}
    path = [node["unique_id"] for node in critical_path if node["unique_id"] in graph]
    chosen = list(dict.fromkeys(_by_weight(graph, outcomes, path, [key for key in slower if key in graph])))
    shown = chosen[:limit]
    nodes = [
        LineageNode(
            unique_id=key,
            name=name_of(key, rows),
            kind=key.partition(".")[0],
            outcome=outcomes[key],
            seconds=(rows.get(key) or {}).get("seconds"),
            is_on_path=key in path,
            failing_tests=len(tests.get(key, ())),
            parents=tuple(sorted(graph.predecessors(key))),
            children=tuple(sorted(graph.successors(key))),
        )
        for key in shown
    ]
    return Lineage(nodes, _edges(graph, shown), path, len(chosen) - len(shown))


def trouble_of_tests(latest: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the outcomes of tests that fail or warn, by the node that they are about."""
    found: dict[str, list[str]] = {}
    for row in latest:
        if row["resource_type"] in TEST_TYPES and row["outcome"] in _BAD:
            for tested in row["tested"] or ():
                found.setdefault(tested, []).append(row["outcome"])
    return found


def worst(outcomes: Iterable[str | None]) -> str | None:
    """Return the worst of some outcomes; None where there is none."""
    said = [outcome for outcome in outcomes if outcome]
    return next((each for each in (*_BAD, "skipped") if each in said), said[0] if said else None)


def name_of(unique_id: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what people call a node: a source by its source and table."""
    if unique_id.startswith("source."):
        return ".".join(unique_id.split(".")[2:])
    row = rows.get(unique_id)
    return row["name"] if row else unique_id.split(".", 2)[-1]


def _by_weight(
    graph: networkx.DiGraph[str], outcomes: Mapping[str, str | None], path: Sequence[str], slower: Sequence[str]
) -> Iterator[str]:
    troubled = [key for outcome in _BAD for key in sorted(graph) if outcomes[key] == outcome]
    yield from troubled
    yield from slower
    yield from path
    downstream = reach([after for key in troubled for after in sorted(graph.successors(key))], graph.successors)
    # What was held back comes before what was built all the same.
    yield from (key for key in downstream if outcomes[key] == "skipped")
    for key in (*troubled, *path, *slower):
        yield from sorted(graph.predecessors(key))
    yield from downstream


def _edges(graph: networkx.DiGraph[str], shown: Sequence[str]) -> dict[tuple[str, str], bool]:
    import networkx

    drawn = set(shown)
    edges = {(before, key): True for key in shown for before in graph.predecessors(key) if before in drawn}
    whole: networkx.DiGraph[str] = networkx.DiGraph(list(edges))
    whole.add_nodes_from(shown)
    for key in shown:
        hidden = [before for before in graph.predecessors(key) if before not in drawn]
        through = reach(hidden, lambda here: () if here in drawn else graph.predecessors(here))
        for before in sorted(drawn.intersection(through)):
            if before != key and not networkx.has_path(whole, before, key):
                edges[before, key] = False
                whole.add_edge(before, key)
    return edges
