"""Place the nodes of a small graph in layers from left to right: a pure function of its edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx

Edge = tuple[str, str]
Point = tuple[float, float]

_SWEEPS = 8
# What keeps an edge apart from what is beside it, where it passes a layer.
_PASSING = 0.4


@dataclass(frozen=True)
class Layout:
    """Where everything is, in layers across and boxes down.

    Attributes:
        places: layer and height of each node.
        routes: for each edge, the points that it passes from its first node to its last, both included.
        layers, height: how much room all of it takes.
    """

    places: Mapping[str, Point]
    routes: Mapping[Edge, Sequence[Point]]
    layers: int
    height: float


def layered(nodes: Sequence[str], edges: Sequence[Edge]) -> Layout:
    """Return a layout in which edges lead to the right and cross seldom.

    An edge of a circle, which a damaged history could hold, may lead to the left.
    """
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(edge for edge in edges if edge[0] != edge[1])
    while not networkx.is_directed_acyclic_graph(graph):
        graph.remove_edge(*networkx.find_cycle(graph)[-1][:2])
    depth = _depths(graph)
    steps = {edge: _steps(edge, depth) for edge in graph.edges}
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    real = set(graph.nodes)
    for node in networkx.topological_sort(graph):
        rows[depth[node]].append(node)
    for passed in steps.values():
        for node, layer in passed[1:-1]:
            depth[node] = layer
            rows[layer].append(node)
    links = [(a, b) for passed in steps.values() for (a, _), (b, _) in pairwise(passed)]
    rows = _ordered(rows, links)
    heights = _heights(rows, links, real)
    top = min(heights.values(), default=0.0)
    points = {node: (float(depth[node]), heights[node] - top) for node in depth}
    routes = {edge: [points[node] for node, _ in passed] for edge, passed in steps.items()}
    for edge in edges:
        routes.setdefault(edge, [points[edge[0]], points[edge[1]]])
    bottom = max((height for _, height in points.values()), default=0.0)
    return Layout({node: points[node] for node in nodes}, routes, len(rows), bottom)


def _depths(graph: networkx.DiGraph[str]) -> dict[str, int]:
    depth: dict[str, int] = {}
    for node in networkx.topological_sort(graph):
        depth[node] = max((depth[before] + 1 for before in graph.predecessors(node)), default=0)
    # What reads nothing stands right before what reads it, not at the far left.
    for node in graph:
        if graph.out_degree(node) and not graph.in_degree(node):
            depth[node] = min(depth[after] for after in graph.successors(node)) - 1
    return depth


def _steps(edge: Edge, depth: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the nodes of an edge and, in each layer between them, a place that it passes through."""
    start, end = edge
    between = [(f"{start}\n{end}\n{layer}", layer) for layer in range(depth[start] + 1, depth[end])]
    return [(start, depth[start]), *between, (end, depth[end])]


def _ordered(rows: list[list[str]], links: Sequence[Edge]) -> list[list[str]]:
    """Sort each layer by where its neighbours stand, to and fro, and return the order with the fewest crossings."""
    best, fewest = [list(row) for row in rows], _crossings(rows, links)
    for sweep in range(_SWEEPS):
        forth = sweep % 2 == 0
        place = {node: index for row in rows for index, node in enumerate(row)}
        for row in rows if forth else reversed(rows):
            near: dict[str, list[int]] = {node: [] for node in row}
            for start, end in links:
                here, other = (end, start) if forth else (start, end)
                if here in near:
                    near[here].append(place[other])
            row.sort(key=lambda node: sum(near[node]) / len(near[node]) if near[node] else place[node])
            place |= {node: index for index, node in enumerate(row)}
        if (crossings := _crossings(rows, links)) < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _crossings(rows: Sequence[Sequence[str]], links: Sequence[Edge]) -> int:
    place = {node: index for row in rows for index, node in enumerate(row)}
    layer = {node: number for number, row in enumerate(rows) for node in row}
    found = 0
    for number in range(len(rows)):
        here = [(place[a], place[b]) for a, b in links if layer[a] == number]
        found += sum((a - c) * (b - d) < 0 for index, (a, b) in enumerate(here) for c, d in here[:index])
    return found


def _heights(rows: Sequence[Sequence[str]], links: Sequence[Edge], real: set[str]) -> dict[str, float]:
    """Return how far down each node is: near its neighbours, and apart from those above and below."""
    near: dict[str, list[str]] = {node: [] for row in rows for node in row}
    for start, end in links:
        near[start].append(end)
        near[end].append(start)
    heights = {node: float(index) for row in rows for index, node in enumerate(row)}
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = [
                sum(heights[other] for other in near[node]) / len(near[node]) if near[node] else heights[node]
                for node in row
            ]
            heights |= dict(zip(row, _apart(row, wanted, real), strict=True))
    return heights


def _apart(row: Sequence[str], wanted: Sequence[float], real: set[str]) -> list[float]:
    """Return heights as near as can be to those that are wanted, in this order and far enough from each other."""
    offsets = [0.0]
    for above, below in pairwise(row):
        offsets.append(offsets[-1] + (1.0 if above in real and below in real else 0.5 + _PASSING / 2))
    # Those that would overlap move together: each block of them stands at the mean of what its members want.
    blocks: list[tuple[float, int]] = []
    for value, offset in zip(wanted, offsets, strict=False):
        mean, size = value - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, members = blocks.pop()
            mean, size = (before * members + mean * size) / (members + size), members + size
        blocks.append((mean, size))
    starts = [mean for mean, size in blocks for _ in range(size)]
    return [start + offset for start, offset in zip(starts, offsets, strict=False)]
