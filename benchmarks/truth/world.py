"""A small dbt project as data: what it is made of, and the edits that change what it should come to."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

# What a test takes for a mistake in the data, and what the rows of a source have where there is one.
LIMIT = 100_000_000
BAD = 1_000_000_000
TAGS = ("hot", "slow")
# Folders and names that mean something else in a selection, in a shell or in YAML.
_FOLDERS = ("", "", "staging", "Finance & Sales", "zwölf", "a,b [x]", "tag:hot", "plus+", "(old)", "it's")
_ODD_MODELS = ("2024", "größe", "dim_v9", "select_star", "node_1_copy")
_ODD_TESTS = ("ratio_within_[0,1]", "orders.id=unique,always", "id::not_null", "grade_A+", "@at", "[bold]x", "to*")
_SHAPES = ("table", "table", "table", "view", "view", "incremental", "ephemeral", "microbatch")


@dataclass(frozen=True)
class Source:
    """A raw table: values by id. A stale one was loaded too long ago."""

    name: str
    rows: dict[int, int]
    has_freshness: bool = False
    is_stale: bool = False


@dataclass(frozen=True)
class Node:
    """A seed, a snapshot or a model: each row is the sum of its parents' rows of that id, plus a constant.

    Attributes:
        parents: names of nodes, or of sources as `source:NAME`.
        add: the constant in the code.
        looks_up: where more of the constant comes from: "macro", "project_var", "var" or "env".
        can_trip: an environment variable can make it fail.
        is_broken: its code is wrong.
        minds_data: it fails, by itself, when a row is BAD.
        goes_on: what reads it is built all the same when it fails: `on_error: continue` of dbt 1.12.
        words: how its code is written, which says the same.
    """

    name: str
    number: int
    kind: str
    parents: tuple[str, ...] = ()
    shape: str = "table"
    add: int = 0
    looks_up: frozenset[str] = frozenset()
    folder: str = ""
    package: bool = False
    version: int | None = None
    tags: frozenset[str] = frozenset()
    can_trip: bool = False
    is_broken: bool = False
    minds_data: bool = False
    has_macro_filter: bool = False
    hooked: bool = False
    goes_on: bool = False
    words: int = 0
    rows: dict[int, int] = field(default_factory=dict[int, int])

    @property
    def relation(self) -> str:
        """Return the name of its table or view."""
        return f"{self.name}_v{self.version}" if self.version else self.name

    @property
    def trip(self) -> str:
        """Return the environment variable that makes it fail."""
        return f"TRIP_{self.number}"


@dataclass(frozen=True)
class Check:
    """A data test or a unit test.

    Attributes:
        kind: "not_null", "unique", "below", "singular", "related" or "unit".
        of: the relation names of the nodes that it reads.
        is_wrong: a unit test that expects something else.
    """

    name: str
    kind: str
    of: tuple[str, ...]
    is_warning: bool = False
    is_wrong: bool = False


@dataclass(frozen=True)
class World:
    """A project, the data under it and the environment around it.

    Attributes:
        nodes: by relation name, parents first.
        env: what TRIP_… and BUMP are set to.
        hook: the constant that its on-run-end hook writes down; None where it has no hooks.
        has_default: its selectors.yml has a default, which leaves out what is tagged slow.
        is_var_of_env: the variable in dbt_project.yml looks an environment variable up.
        has_transactions: what dbt does for one node is done wholly or not at all, also where it is killed.
    """

    nodes: dict[str, Node]
    checks: dict[str, Check]
    sources: dict[str, Source]
    macro: int = 0
    project_var: int = 0
    env: dict[str, str] = field(default_factory=dict[str, str])
    hook: int | None = None
    has_default: bool = False
    has_package: bool = False
    has_board: bool = False
    has_metrics: bool = False
    has_group: bool = False
    is_disabled_there: bool = False
    is_var_of_env: bool = False
    has_transactions: bool = True

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment variables that its commands are given."""
        return {**self.env, "STEADY": str(self.project_var)} if self.is_var_of_env else self.env

    def constant(self, node: Node, variables: dict[str, int]) -> int:
        """Return what a node adds to its rows, with these variables on the command line."""
        more = {
            "macro": self.macro,
            "project_var": self.project_var,
            "var": variables.get("bump", 0),
            "env": int(self.env.get("BUMP", "0")),
        }
        return node.add + sum(more[name] for name in node.looks_up)

    def children(self, relation: str) -> list[str]:
        """Return the nodes that read a node."""
        return [name for name, node in self.nodes.items() if relation in node.parents]

    def downstream(self, relations: Iterable[str]) -> set[str]:
        """Return these nodes and all that depends on them."""
        found = set(relations)
        for name, node in self.nodes.items():
            if found & set(node.parents):
                found.add(name)
        return found

    def upstream(self, relations: Iterable[str]) -> set[str]:
        """Return these nodes and all that they depend on, sources included."""
        found = set(relations)
        for name, node in reversed(self.nodes.items()):
            if name in found:
                found |= set(node.parents)
        return found


def generated_world(chance: random.Random, has_freshness: bool, most_nodes: int = 12) -> World:
    """Return a project of 5 nodes and more."""
    sources = {
        f"src_{number}": Source(
            f"src_{number}",
            {row: chance.randrange(1, 100) for row in range(chance.randrange(2, 6))},
            has_freshness and chance.random() < 0.5,
        )
        for number in range(chance.randrange(1, 4))
    }
    nodes: dict[str, Node] = {}
    odd = list(_ODD_MODELS)
    chance.shuffle(odd)
    has_package = chance.random() < 0.25
    for number in range(chance.randrange(5, most_nodes + 1)):
        node = _generated_node(chance, number, nodes, sources, has_package)
        if node.kind == "model" and not node.package and chance.random() < 0.12 and odd:
            node = replace(node, name=odd.pop())
        nodes[node.relation] = node
    if chance.random() < 0.2:
        parent = chance.choice([*nodes])
        for version in (1, 2):
            dim = Node("dim", len(nodes), "model", (parent,), "table", version, version=version, can_trip=True)
            nodes[dim.relation] = dim
    world = World(
        nodes,
        {},
        sources,
        macro=chance.randrange(10),
        project_var=chance.randrange(10),
        hook=chance.randrange(10) if chance.random() < 0.4 else None,
        has_default=chance.random() < 0.15,
        has_package=has_package,
        has_board=chance.random() < 0.3,
        has_metrics=chance.random() < 0.12,
        has_group=chance.random() < 0.2,
        is_disabled_there=chance.random() < 0.2,
        is_var_of_env=chance.random() < 0.3,
    )
    return replace(world, checks={check.name: check for check in _generated_checks(chance, world)})


def _generated_node(
    chance: random.Random, number: int, nodes: dict[str, Node], sources: dict[str, Source], has_package: bool
) -> Node:
    name = f"node_{number}"
    tags = frozenset(tag for tag in TAGS if chance.random() < 0.2)
    if chance.random() < 0.12:
        return Node(name, number, "seed", rows={row: chance.randrange(1, 100) for row in range(3)}, tags=tags)
    recent = [*nodes][-5:]
    if recent and chance.random() < 0.12:
        base = chance.choice(recent)
        # One of a snapshot would take its history for rows.
        if nodes[base].shape not in ("ephemeral", "snapshot"):
            return Node(name, number, "snapshot", (base,), "snapshot", tags=tags)
    parents = chance.sample(recent, min(len(recent), chance.choice((0, 1, 1, 1, 2, 2))))
    if not parents or chance.random() < 0.2:
        parents.append(f"source:{chance.choice([*sources])}")
    shape = chance.choice(_SHAPES)
    may_trip = chance.random() < 0.5 and shape != "ephemeral"
    looks_up = frozenset(what for what in ("macro", "project_var", "var", "env") if chance.random() < 0.2)
    # What a package names, it has to have: only what is not of the project.
    in_package = has_package and chance.random() < 0.3 and all(p in nodes and nodes[p].package for p in parents)
    if has_package and not any(node.package for node in nodes.values()) and number == 1:
        in_package, parents = True, []
    return Node(
        name,
        number,
        "model",
        tuple(parents),
        "table" if in_package and shape == "microbatch" else shape,
        chance.randrange(1, 50),
        frozenset() if in_package else looks_up,
        chance.choice(_FOLDERS),
        in_package,
        None,
        tags,
        may_trip,
        minds_data=chance.random() < 0.08 and shape in ("table", "incremental"),
        has_macro_filter=shape == "incremental" and chance.random() < 0.5,
        hooked=shape == "table" and chance.random() < 0.1,
        goes_on=shape != "ephemeral" and chance.random() < 0.1,
        rows={row: row + 1 for row in range(2)} if not parents else {},
    )


def _generated_checks(chance: random.Random, world: World) -> Iterable[Check]:
    odd = list(_ODD_TESTS)
    chance.shuffle(odd)
    for relation, node in world.nodes.items():
        is_warning = chance.random() < 0.2
        if chance.random() < 0.4 and not node.package:
            name = odd.pop() if odd and chance.random() < 0.3 else f"not_null_{relation}"
            yield Check(name, "not_null", (relation,))
        # A snapshot holds what was once so, too.
        if chance.random() < 0.2 and not node.package and node.kind != "snapshot":
            yield Check(f"unique_{relation}", "unique", (relation,))
        if chance.random() < 0.25 and not node.package and node.kind != "snapshot":
            yield Check(f"below_{relation}", "below", (relation,), is_warning)
        if chance.random() < 0.1 and node.kind != "snapshot":
            yield Check(f"singular_{relation}", "singular", (relation,))
        own = [parent for parent in node.parents if parent in world.nodes]
        if len(node.parents) == 1 and own and chance.random() < 0.2 and not node.package:
            yield Check(f"related_{relation}", "related", (relation, own[0]))
        is_plain = node.kind == "model" and node.shape in ("table", "view") and not node.looks_up - {"macro"}
        is_plain = is_plain and all(world.nodes[name].shape in ("table", "view") for name in own)
        # The project's own file has them, where dbt looks for no model of a package.
        is_plain = is_plain and not (node.package or node.version)
        if is_plain and len(own) == len(node.parents) == 1 and chance.random() < 0.25:
            yield Check(f"unit_{relation}", "unit", (relation,))


@dataclass(frozen=True)
class Edit:
    """Something that happens to a project, its data or its environment between two commands.

    Attributes:
        of: the relation, the source or the test that it happens to.
        parent: what a node reads from now on, too.
        node: the one that is added.
        check: the test that comes with it.
    """

    what: str
    of: str = ""
    value: int = 0
    parent: str = ""
    node: Node | None = None
    check: Check | None = None

    def __str__(self) -> str:
        """Say it."""
        value = str(self.value) if self.value else ""
        return " ".join(part for part in (self.what, self.of, self.parent, value) if part)

    def applied(self, world: World) -> World:
        """Return the world after it; the same where there is nothing that it could happen to."""
        if self.node is not None:
            return _with_one_more(world, self.node, self.check)
        if self.what == "remove":
            return without(world, self.of)
        if self.what == "read more":
            return _reading(world, self.of, self.parent)
        if self.what in _OF_NODES:
            node = world.nodes.get(self.of)
            return _with_node(world, _OF_NODES[self.what](node, self.value)) if node else world
        if self.what in _OF_SOURCES:
            source = world.sources.get(self.of)
            if source is None:
                return world
            return replace(world, sources={**world.sources, self.of: _OF_SOURCES[self.what](source, self.value)})
        return self._applied_to_all(world)

    def _applied_to_all(self, world: World) -> World:
        match self.what:
            case "macro":
                return replace(world, macro=self.value)
            case "project var":
                return replace(world, project_var=self.value)
            case "env":
                return replace(world, env={**world.env, "BUMP": str(self.value)})
            case "hook":
                return world if world.hook is None else replace(world, hook=self.value)
            case "trip" | "trip passing" | "trip batch":
                word = {"trip": "hard", "trip passing": "pass", "trip batch": "batch"}[self.what]
                return replace(world, env={**world.env, self.of: word})
            case "heal":
                return healed(world)
            case "wrong test" | "right test":
                if self.of not in world.checks:
                    return world
                check = replace(world.checks[self.of], is_wrong=self.what == "wrong test")
                return replace(world, checks={**world.checks, self.of: check})
            case "drop" | "nothing":
                return world
            case _:
                raise ValueError(self.what)


def healed(world: World) -> World:
    """Return a world in which nothing is broken any more, by code, data or environment."""
    nodes = {name: replace(node, is_broken=False) for name, node in world.nodes.items()}
    sources = {
        name: replace(
            source, is_stale=False, rows={key: 7 if value >= LIMIT else value for key, value in source.rows.items()}
        )
        for name, source in world.sources.items()
    }
    checks = {name: replace(check, is_wrong=False) for name, check in world.checks.items()}
    env = {name: value for name, value in world.env.items() if not name.startswith("TRIP")}
    return replace(world, nodes=nodes, sources=sources, checks=checks, env=env)


def without(world: World, relation: str) -> World:
    """Return a world that lacks a node and its tests; the same where something reads it, or it has versions."""
    node = world.nodes.get(relation)
    if node is None or world.children(relation) or node.version is not None or len(world.nodes) == 1:
        return world
    nodes = {name: other for name, other in world.nodes.items() if name != relation}
    checks = {name: check for name, check in world.checks.items() if relation not in check.of}
    return replace(world, nodes=nodes, checks=checks)


def _with_one_more(world: World, node: Node, check: Check | None) -> World:
    # A history of which a shorter one is looked for can lack what it reads.
    if any(parent not in world.nodes for parent in node.parents if not parent.startswith("source:")):
        return world
    checks = {**world.checks, check.name: check} if check else world.checks
    return replace(world, nodes={**world.nodes, node.relation: node}, checks=checks)


def _with_node(world: World, node: Node) -> World:
    return replace(world, nodes={**world.nodes, node.relation: node})


def _coded(node: Node, value: int) -> Node:
    return replace(node, add=value) if node.kind == "model" else node


def _broken(node: Node, _: int) -> Node:
    return replace(node, is_broken=node.kind == "model")


def _mended(node: Node, _: int) -> Node:
    return replace(node, is_broken=False)


def _reading(world: World, relation: str, parent: str) -> World:
    """Return a world in which a node reads one more, which stands before it."""
    names = [*world.nodes]
    node = world.nodes.get(relation)
    if node is None or parent not in names or names.index(parent) >= names.index(relation) or parent in node.parents:
        return world
    return _with_node(world, replace(node, parents=(*node.parents, parent)))


def generated_addition(chance: random.Random, world: World) -> Edit:
    """Return the edit that adds a model, a seed or a snapshot, and perhaps a test of it."""
    number = max(node.number for node in world.nodes.values()) + 1
    node = _generated_node(chance, number, world.nodes, world.sources, has_package=False)
    check = Check(f"not_null_{node.relation}", "not_null", (node.relation,)) if chance.random() < 0.5 else None
    return Edit("add", node.relation, node=node, check=check)


def generated_reading(chance: random.Random, world: World) -> Edit | None:
    """Return the edit by which a model reads another one more; None where none can."""
    names = [*world.nodes]
    # Their tests are written for the parents that they have.
    fixed = {check.of[0] for check in world.checks.values() if check.kind in ("unit", "related")}
    able = [
        name
        for place, name in enumerate(names)
        if world.nodes[name].kind == "model" and world.nodes[name].parents and not world.nodes[name].package
        if name not in fixed and set(names[:place]) - set(world.nodes[name].parents)
    ]
    if not able:
        return None
    relation = chance.choice(able)
    nodes = world.nodes
    earlier = [name for name in names[: names.index(relation)] if name not in nodes[relation].parents]
    return Edit("read more", relation, parent=chance.choice(earlier))


def _with_other_rows(node: Node, value: int) -> Node:
    return replace(node, rows={**node.rows, value % 5: value}) if node.rows else node


def _reworded(node: Node, value: int) -> Node:
    return replace(node, words=value)


def _moved(node: Node, value: int) -> Node:
    return replace(node, folder=_FOLDERS[value % len(_FOLDERS)]) if node.kind == "model" else node


def _reshaped(node: Node, _: int) -> Node:
    shape = {"table": "view", "view": "table"}.get(node.shape, node.shape)
    return replace(node, shape=shape, hooked=False, minds_data=False)


def _with_more(source: Source, value: int) -> Source:
    return replace(source, rows={**source.rows, value % 8: value})


def _with_bad(source: Source, _: int) -> Source:
    return replace(source, rows={**source.rows, 0: BAD})


def _stale(source: Source, _: int) -> Source:
    return replace(source, is_stale=source.has_freshness)


_OF_NODES: Mapping[str, Callable[[Node, int], Node]] = {
    "code": _coded,
    "break": _broken,
    "mend": _mended,
    "rows": _with_other_rows,
    "shape": _reshaped,
    "move": _moved,
    "words": _reworded,
}
_OF_SOURCES: Mapping[str, Callable[[Source, int], Source]] = {
    "data": _with_more,
    "bad data": _with_bad,
    "stale": _stale,
}
