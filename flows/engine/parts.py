"""Split a DAG into parts that different workers can build: by domain, none waiting for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flows.engine.artifacts.graph import Graph, Node
from infrastructure.errors import ConfigError, preview

# What does not run, however it is selected.
_NEVER_RUN = frozenset({"source", "exposure", "analysis"})
_TESTS = frozenset({"test", "unit_test"})
NO_DOMAIN = "rest"
ACROSS = "across domains"


@dataclass(frozen=True)
class Part:
    """Nodes that one dbt command builds.

    Attributes:
        nodes: unique ids, in the order of the manifest.
        after: names of the parts that have to be done before; all of them come earlier in a split.
        wave: 0 for a part that waits for none, otherwise one more than the last that it waits for.
    """

    name: str
    nodes: tuple[str, ...]
    after: tuple[str, ...]
    wave: int


@dataclass(frozen=True)
class Split:
    """The parts of a DAG, in an order in which they can be built one after the other.

    Attributes:
        cut: edges between nodes of different parts.
        edges: all edges between the nodes.
    """

    parts: tuple[Part, ...]
    cut: int
    edges: int

    @property
    def waves(self) -> int:
        """Return how many parts stand on each other at most."""
        return max((part.wave for part in self.parts), default=-1) + 1


def domain_by(how: str) -> Callable[[Node], str]:
    """Return what tells the domain of a node: its "group", its "folder", or the first of "tag:a,b,…" that it has.

    A folder is the second of its path, as in models/marts/sales/orders.sql or models/sales/orders.sql: the last that
    holds files of one domain. A node that has none is in `NO_DOMAIN`.

    Raises:
        ConfigError: it is none of these.
    """
    method, _, rest = how.partition(":")
    if method == "group" and not rest:
        return lambda node: node.group or NO_DOMAIN
    if method == "folder" and not rest:
        return lambda node: _folder(node.path)
    if method == "tag" and rest:
        tags = [tag.strip() for tag in rest.split(",")]
        return lambda node: next((tag for tag in tags if tag in node.tags), NO_DOMAIN)
    raise ConfigError(f"A project can't be split by {how!r}. Give group, folder, or tags in the form tag:sales,people.")


def split(graph: Graph, selected: Iterable[str], domain: Callable[[Node], str]) -> Split:
    """Split the selected nodes into a part per domain; more than one where two domains stand on each other.

    A test belongs to what it tests. One across domains belongs to the part that stands on the others, where there is
    one; else it is in a part of its own, which nothing waits for.
    """
    nodes = [key for key in selected if key in graph.nodes and graph.nodes[key].resource_type not in _NEVER_RUN]
    built = [key for key in nodes if graph.nodes[key].resource_type not in _TESTS]
    parents = {key: graph.parents(key, nodes) for key in nodes}
    above = {key: _built_above(key, parents, set(built)) for key in built}
    domains = {key: domain(graph.nodes[key]) for key in built}
    names = _untangled(built, above, domains)
    after = _edges(built, above, names)
    upstream = {name: _reach(name, after) for name in dict.fromkeys(names.values())}
    for key in nodes:
        if key not in names:
            tested = {names[other] for other in graph.nodes[key].tests or parents[key] if other in names}
            names[key] = _home(tested, upstream)
            if names[key] == ACROSS:
                after.setdefault(ACROSS, set()).update(tested)
    waves = _waves(dict.fromkeys(names.values()), after)
    members: dict[str, list[str]] = {}
    for key in nodes:
        members.setdefault(names[key], []).append(key)
    parts = [
        Part(name, tuple(members[name]), tuple(sorted(after.get(name, ()))), waves[name])
        for name in sorted(members, key=lambda name: (waves[name], name))
    ]
    edges = [(parent, key) for key in nodes for parent in parents[key]]
    return Split(tuple(parts), sum(1 for parent, key in edges if names[parent] != names[key]), len(edges))


def _folder(path: str) -> str:
    folders = path.split("/")[:-1]
    # models/marts/sales and models/sales: the folder right above the files, below models.
    return folders[-1] if len(folders) > 1 else NO_DOMAIN


def _built_above(key: str, parents: Mapping[str, Sequence[str]], built: set[str]) -> set[str]:
    """Return what a node is built from; a unit test stands between, and is no edge of the data."""
    found: set[str] = set()
    for parent in parents[key]:
        found |= (
            {parent} if parent in built else {other for other in parents[parent] if other in built and other != key}
        )
    return found


def _untangled(built: Sequence[str], above: Mapping[str, set[str]], domains: Mapping[str, str]) -> dict[str, str]:
    """Return the part of each node: its domain, with a number where domains stand on each other."""
    edges = _edges(built, above, domains)
    reach = {name: _reach(name, edges) for name in dict.fromkeys(domains.values())}
    tangled = {name for name in reach if name in reach[name]}
    stage: dict[str, int] = {}
    for key in _ordered(built, above):
        own = domains[key]
        stage[key] = max(
            (
                stage[parent] + (domains[parent] != own)
                for parent in above[key]
                # Only the way round within one tangle makes a difference.
                if domains[parent] == own or (own in reach[domains[parent]] and domains[parent] in reach[own])
            ),
            default=0,
        )
    return {key: f"{domains[key]} {stage[key] + 1}" if domains[key] in tangled else domains[key] for key in built}


def _edges(built: Sequence[str], above: Mapping[str, set[str]], names: Mapping[str, str]) -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {}
    for key in built:
        edges.setdefault(names[key], set()).update(names[parent] for parent in above[key])
    return {name: others - {name} for name, others in edges.items()}


def _reach(name: str, edges: Mapping[str, set[str]]) -> set[str]:
    """Return all that stands above a name; the name itself only when it stands on itself."""
    seen: set[str] = set()
    waiting = list(edges.get(name, ()))
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            waiting.extend(edges.get(here, ()))
    return seen


def _ordered(built: Sequence[str], above: Mapping[str, set[str]]) -> list[str]:
    """Return the nodes so that each comes after what it is built from."""
    left = {key: len(above[key]) for key in built}
    below: dict[str, list[str]] = {}
    for key in built:
        for parent in above[key]:
            below.setdefault(parent, []).append(key)
    ready = [key for key in built if not left[key]]
    for key in ready:
        for child in below.get(key, ()):
            left[child] -= 1
            if not left[child]:
                ready.append(child)
    if len(ready) < len(built):
        circle = [key for key in built if left[key]]
        raise ConfigError(f"These nodes of the manifest stand on each other in a circle: {preview(circle)}.")
    return ready


def _home(tested: set[str], upstream: Mapping[str, set[str]]) -> str:
    if not tested:
        return NO_DOMAIN if NO_DOMAIN in upstream else ACROSS
    return next((name for name in sorted(tested) if tested - {name} <= upstream[name]), ACROSS)


def _waves(names: Iterable[str], after: Mapping[str, set[str]]) -> dict[str, int]:
    waves: dict[str, int] = {}

    def wave(name: str) -> int:
        if name not in waves:
            waves[name] = max((wave(other) + 1 for other in after.get(name, ())), default=0)
        return waves[name]

    for name in names:
        wave(name)
    return waves
