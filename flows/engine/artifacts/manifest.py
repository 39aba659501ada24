"""dbt's manifest as typed values: its nodes, what each depends on, whose it is, and what must not be shown of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from infrastructure.errors import ConfigError, preview

if TYPE_CHECKING:
    import networkx

# In dbt's meta, of a node or of a column.
PERSONAL = "contains_personal_data"
# In the meta of a source: the Airbyte connections that load it, one id or a list of them.
CONNECTION_KEY = "airbyte_connection_id"
# What `unique`, `accepted_values` and `relationships` of dbt call the column that they are about.
_SHOWN_AS = frozenset({"unique_field", "value_field", "from_field"})
TEST_TYPES = frozenset({"test", "unit_test"})
# What becomes a relation of its own, unless it is an ephemeral model.
DATA_TYPES = frozenset({"model", "seed", "snapshot"})
_HOLD_ROWS = frozenset({"table", "incremental", "snapshot", "seed"})


class Node(NamedTuple):
    """One node of a manifest.

    Attributes:
        name: what people call it; with its version where a model has several.
        fqn: its dotted path in the project.
        depends_on: unique ids of the nodes right before it.
        tests: unique ids of what a test is about; empty for other nodes.
        attached_to: the one of them that a generic test is declared on.
        path, properties_path: the file of its code, from the project's folder, and the one that describes it.
        relation: None for a node that has none.
        owners: whom its own meta and its group name.
        is_critical: see `is_critical`.
        where: the rows that a test looks at; empty for all.
        stores_failures: whether the project has a test store the rows that it finds.
        has_freshness: whether dbt checks how old it is; of sources.
        kind: of a generic test, such as not_null.
        column: the one that a generic test is about.
        unique_columns: those that a test proves to name a row; empty where it proves something else.
        columns, personal_columns: those that are described, in lower case.
        label: what people call an exposure.
        snapshot: what dbt alone knows of a snapshot's table; None for other nodes.
        batches: how a model is cut into batches of time; None for other nodes.
        loader: what loads a source, in the project's own words.
        description: of what becomes a relation, and of sources.
        lets_go_on: whether what reads it is built all the same when it fails: `on_error: continue` of dbt 1.12.
    """

    unique_id: str
    name: str
    resource_type: str
    materialized: str
    fqn: str
    depends_on: tuple[str, ...]
    tests: tuple[str, ...]
    attached_to: str
    path: str
    properties_path: str
    relation: str | None
    database: str
    schema: str
    tags: tuple[str, ...]
    meta: Mapping[str, Any]
    owners: tuple[str, ...]
    is_critical: bool
    severity: str
    where: str
    stores_failures: bool
    has_freshness: bool
    kind: str
    column: str
    unique_columns: tuple[str, ...]
    columns: frozenset[str]
    personal_columns: frozenset[str]
    label: str
    snapshot: Snapshot | None
    batches: Batches | None
    lets_go_on: bool = False
    loader: str = ""
    description: str = ""

    @property
    def is_test(self) -> bool:
        """Return whether it is a test of data or of code."""
        return self.resource_type in TEST_TYPES

    @property
    def is_ephemeral(self) -> bool:
        """Return whether it is part of what reads it."""
        return self.materialized == "ephemeral"

    @property
    def holds_rows(self) -> bool:
        """Return whether it is a table of its own."""
        return self.resource_type in DATA_TYPES and self.materialized in _HOLD_ROWS and bool(self.relation)


class Batches(NamedTuple):
    """How a model is cut into batches of time.

    Attributes:
        size: hour, day, month or year.
        lookback: batches before the last one that a run builds again.
        begin: where the first one begins; empty where the project does not say.
        full_refresh: whether a build begins the table anew; None where the command decides.
    """

    size: str
    lookback: int
    begin: str
    full_refresh: bool | None = None


class Snapshot(NamedTuple):
    """The settings of a snapshot.

    Attributes:
        names: what the project calls dbt's own columns, by dbt's name of them.
        open_end: SQL of the end of a version that holds; "null" unless the project says otherwise.
        may_end: whether what was deleted at its source ends here.
    """

    key: tuple[str, ...]
    names: Mapping[str, str]
    open_end: str
    may_end: bool

    def column(self, name: str) -> str:
        """Return what one of dbt's own columns is called."""
        return self.names.get(name) or name


class SwitchedOff(NamedTuple):
    """A disabled test: dbt has not worked out what it depends on, and only names it.

    Attributes:
        names: of the models that it refers to.
        sources: as source.table.
    """

    name: str
    names: frozenset[str]
    sources: frozenset[str]


@dataclass(frozen=True)
class Manifest:
    """The nodes of one manifest by unique id: all that dbt can run, sources and exposures.

    Attributes:
        project, adapter, dbt_version: empty where it does not say.
        switched_off: the disabled tests.
    """

    nodes: Mapping[str, Node]
    project: str = ""
    adapter: str = ""
    dbt_version: str = ""
    switched_off: tuple[SwitchedOff, ...] = ()

    @cached_property
    def graph(self) -> networkx.DiGraph[str]:
        """Return the edges, from what is depended on to what depends on it.

        Only what is asked when something failed, is planned or looked at asks it: the import costs a quarter of that of
        Prefect and 14 MB (measured 2026-11-28), which a run that goes well does not pay; see `reach`.
        """
        import networkx

        graph: networkx.DiGraph[str] = networkx.DiGraph()
        graph.add_nodes_from(self.nodes)
        graph.add_edges_from((before, node.unique_id) for node in self.nodes.values() for before in node.depends_on)
        return graph

    def before(self, unique_id: str) -> tuple[str, ...]:
        """Return the nodes right before one; none for a node that is not there."""
        node = self.nodes.get(unique_id)
        return node.depends_on if node else ()

    def read_by(self, unique_id: str) -> list[str]:
        """Return the nodes right before one, and those right before the ephemeral models among them."""
        return reach(self.before(unique_id), lambda here: self.before(here) if self._is_ephemeral(here) else ())

    def _is_ephemeral(self, unique_id: str) -> bool:
        return unique_id in self.nodes and self.nodes[unique_id].is_ephemeral

    def parents(self, unique_id: str, among: Iterable[str]) -> list[str]:
        """Return the nearest nodes upstream that are `among` these, looking through those that are not."""
        wanted = among if isinstance(among, (set, frozenset, dict)) else set(among)
        # What does not run, such as an ephemeral model or a table that was not selected, keeps the order: dbt runs what
        # reads it after what it reads.
        found = reach(self.before(unique_id), lambda here: () if here in wanted else self.before(here))
        return sorted(here for here in found if here in wanted)

    def downstream(self, roots: Iterable[str]) -> set[str]:
        """Return all nodes that depend on these, not the roots themselves."""
        return _beyond(self.graph, roots)

    def built_without(self, roots: Iterable[str]) -> set[str]:
        """Return all nodes that dbt builds although these fail, from what these left the last time."""
        going_on = [root for root in roots if root in self.nodes and self.nodes[root].lets_go_on]
        return self.downstream(going_on) if going_on else set()

    def upstream(self, roots: Iterable[str]) -> set[str]:
        """Return all nodes that these depend on, not the roots themselves."""
        return _beyond(self.graph.reverse(copy=False), roots)

    def with_all_after(self, roots: Iterable[str]) -> set[str]:
        """Return these nodes and all that depend on them, as a selection with `+` has it.

        A unit test belongs to its model, and nothing depends on it.
        """
        chosen = set(roots)
        unit_tests = {key for key, node in self.nodes.items() if node.resource_type == "unit_test"}
        found = chosen | self.downstream(chosen - unit_tests)
        return found | {key for key in unit_tests if not found.isdisjoint(self.nodes[key].tests)}

    def steps(self, unique_ids: Iterable[str]) -> dict[str, int]:
        """Return the earliest step in which each of these can run, from 1; each comes after what it depends on.

        Nodes that depend on each other, which dbt refuses in words of its own, are of one step.
        """
        import networkx

        among = dict.fromkeys(unique_ids)
        graph: networkx.DiGraph[str] = networkx.DiGraph()
        graph.add_nodes_from(among)
        graph.add_edges_from((before, here) for here in among for before in self.parents(here, among))
        whole = networkx.condensation(graph)
        found: dict[str, int] = {}
        for step, circles in enumerate(networkx.topological_generations(whole), 1):
            for one in circles:
                found |= dict.fromkeys(sorted(whole.nodes[one]["members"]), step)
        return found

    def checked_sources(self, unique_ids: Iterable[str]) -> list[str]:
        """Return the sources with a freshness that these nodes depend on."""
        chosen = set(unique_ids)
        found = (self.nodes.get(each) for each in chosen | self.upstream(chosen))
        return sorted(node.unique_id for node in found if node and node.has_freshness)

    def require(self, unique_ids: Iterable[str]) -> list[str]:
        """Return these nodes as they are.

        Raises:
            ConfigError: some are not in this manifest; dbt would skip them without a word.
        """
        wanted = list(unique_ids)
        if unknown := [unique_id for unique_id in wanted if unique_id not in self.nodes]:
            raise ConfigError(
                f"{len(unknown)} of {len(wanted)} nodes that are to run are not in the project as it is now: "
                f"{preview(unknown)}. Has it changed since? Run it again; without --resume, if that was given."
            )
        return wanted

    def is_critical(self, unique_id: str) -> bool:
        """Say whether a node is marked as critical."""
        return unique_id in self.nodes and self.nodes[unique_id].is_critical

    def declared_owners(self, unique_id: str) -> tuple[str, ...]:
        """Return who answers for a node, by its meta and its group; for a test, also who does for what it tests."""
        return tuple(dict.fromkeys(owner for node in self._about(unique_id) for owner in node.owners))

    def owners(self, unique_id: str) -> tuple[str, ...]:
        """Return who answers for a node: whom it declares, else the owners of the exposures downstream."""
        declared = self.declared_owners(unique_id)
        return declared or tuple(dict.fromkeys(name for node in self._readers(unique_id) for name in node.owners))

    def affects(self, unique_id: str) -> tuple[str, ...]:
        """Return the exposures downstream of a node, such as dashboards, by the names that people know."""
        return tuple(exposure.label for exposure in self._readers(unique_id))

    def tags(self, unique_id: str) -> tuple[str, ...]:
        """Return the tags of a node and of what it tests."""
        return tuple(dict.fromkeys(tag for node in self._about(unique_id) for tag in node.tags))

    def tested(self, unique_id: str) -> tuple[str, ...]:
        """Return what a test is about, by unique id; nothing for other nodes."""
        node = self.nodes.get(unique_id)
        return () if node is None else (node.attached_to,) if node.attached_to else node.tests

    def tests_among(self, unique_ids: Iterable[str]) -> dict[str, list[str]]:
        """Return the tests among these nodes by each node that they are about."""
        tests: dict[str, list[str]] = {}
        for test in self._found(unique_ids):
            for tested in test.tests:
                tests.setdefault(tested, []).append(test.unique_id)
        return tests

    def is_personal(self, unique_id: str) -> bool:
        """Say whether a test reads anything that is marked, as a whole, as personal data, however far upstream.

        So does a test of a column that is marked itself: whatever its rows are called, they hold that column.
        """
        node = self.nodes.get(unique_id)
        if any(read.meta.get(PERSONAL) for read in self._lineage(unique_id)):
            return True
        return node is not None and node.column.lower() in self.personal_columns(unique_id)

    def personal_columns(self, unique_id: str) -> set[str]:
        """Return the names of the columns marked as personal in anything that a test reads, in lower case."""
        return {name for read in self._lineage(unique_id) for name in read.personal_columns}

    def known_columns(self, unique_id: str) -> set[str]:
        """Return the names of the columns that are described in what a test tests, in lower case.

        Where a test is about one column, also the names by which dbt's own tests show that column's values.
        """
        described = {name for read in self._found(self.before(unique_id)) for name in read.columns}
        node = self.nodes.get(unique_id)
        return described | _SHOWN_AS if node and node.column else described

    def null_rows(self, unique_id: str) -> str | None:
        """Return a query for the rows that a `not_null` test is about; None for other tests."""
        node = self.nodes.get(unique_id)
        tested = next(iter(self._found(self.tested(unique_id))), None)
        if not (node and node.kind == "not_null" and node.column and tested and tested.relation):
            return None
        also = f" and ({node.where})" if node.where else ""
        return f"select * from {tested.relation} where {node.column} is null{also}"

    def _found(self, unique_ids: Iterable[str]) -> list[Node]:
        return [self.nodes[unique_id] for unique_id in unique_ids if unique_id in self.nodes]

    def _about(self, unique_id: str) -> list[Node]:
        """Return a node and, for a test, what it tests."""
        return self._found((unique_id, *self.tested(unique_id)))

    def _lineage(self, unique_id: str) -> list[Node]:
        return self._found([unique_id, *self.upstream([unique_id])])

    def _readers(self, unique_id: str) -> list[Node]:
        about = {node.unique_id for node in self._about(unique_id)}
        return [exposure for exposure, lineage in self._lineages if about & lineage]

    @cached_property
    def _lineages(self) -> list[tuple[Node, set[str]]]:
        exposures = [node for node in self.nodes.values() if node.resource_type == "exposure"]
        return [(node, {node.unique_id, *self.upstream([node.unique_id])}) for node in exposures]


def reach(start: Iterable[str], onward: Callable[[str], Iterable[str]]) -> list[str]:
    """Return what is reached from these on and on, themselves included, nearest first.

    It is for what every run asks, beside the graph of networkx; see `Manifest.graph`.
    """
    seen = dict.fromkeys(start)
    found = list(seen)
    for here in found:
        further = [each for each in onward(here) if each not in seen]
        seen |= dict.fromkeys(further)
        found += further
    return list(seen)


def _beyond(graph: networkx.DiGraph[str], roots: Iterable[str]) -> set[str]:
    import networkx

    start = [root for root in roots if root in graph]
    return set(chain.from_iterable(networkx.bfs_layers(graph, start))).difference(start)
