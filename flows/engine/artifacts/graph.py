"""The part of dbt's manifest that a run needs: which node stands on which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import orjson

from flows.engine.context.events import name_of
from infrastructure.errors import ConfigError, preview

CRITICAL = "critical"
# What people write for yes in YAML. dbt keeps it as text where it is quoted, and dbt 2 where it is not `true`.
CRITICAL_WORDS = tuple(form for word in ("true", "yes", "on") for form in (word, word.title(), word.upper()))
_NOT_CRITICAL = frozenset({"", "false", "no", "off", "n", "0", "none", "null"})


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a manifest.

    Attributes:
        fqn: its dotted path in the project.
        depends_on: unique ids of the nodes right before it.
        tests: unique ids of what a test is about; empty for other nodes.
        path: its file, from the project's folder.
        is_critical: see `is_critical`.
        where: the rows that a test looks at; empty for all.
        has_freshness: whether dbt checks how old it is; of sources.
        group: the dbt group that owns it; empty where it has none.
    """

    unique_id: str
    name: str
    resource_type: str
    fqn: str
    depends_on: tuple[str, ...]
    materialized: str
    tags: tuple[str, ...]
    path: str
    severity: str
    description: str
    relation: str | None
    is_incremental: bool
    tests: tuple[str, ...] = ()
    is_critical: bool = False
    group: str = ""
    where: str = ""
    has_freshness: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes of one manifest by unique id: all that dbt can run, and sources."""

    nodes: Mapping[str, Node]

    def parents(self, unique_id: str, among: Iterable[str]) -> list[str]:
        """Return the nearest nodes upstream that are `among` these, looking through those that are not."""
        wanted = among if isinstance(among, (set, frozenset, dict)) else set(among)
        found: dict[str, None] = {}
        seen: set[str] = set()
        waiting = list(self._before(unique_id))
        while waiting:
            parent = waiting.pop()
            if parent in seen:
                continue
            seen.add(parent)
            if parent in wanted:
                found[parent] = None
            else:
                # What does not run, such as an ephemeral model or a table that was not selected, keeps the order: dbt
                # runs what reads it after what it reads.
                waiting.extend(self._before(parent))
        return sorted(found)

    def downstream(self, roots: Iterable[str]) -> set[str]:
        """Return all nodes that stand on these, not the roots themselves."""
        children: dict[str, list[str]] = {}
        for node in self.nodes.values():
            for parent in node.depends_on:
                children.setdefault(parent, []).append(node.unique_id)
        return _reach(roots, children)

    def upstream(self, roots: Iterable[str]) -> set[str]:
        """Return all nodes that these stand on, not the roots themselves."""
        return _reach(roots, {unique_id: list(node.depends_on) for unique_id, node in self.nodes.items()})

    def checked_sources(self, unique_ids: Iterable[str]) -> list[str]:
        """Return the sources with a freshness that these nodes stand on."""
        chosen = set(unique_ids)
        return sorted(found for found in chosen | self.upstream(chosen) if self._has_freshness(found))

    def _has_freshness(self, unique_id: str) -> bool:
        node = self.nodes.get(unique_id)
        return node is not None and node.has_freshness

    def require(self, unique_ids: Iterable[str]) -> list[str]:
        """Return these nodes as they are.

        Raises:
            ConfigError: some are not in this manifest; dbt would not run them, and nobody would know.
        """
        wanted = list(unique_ids)
        if unknown := [unique_id for unique_id in wanted if unique_id not in self.nodes]:
            raise ConfigError(
                f"{len(unknown)} of {len(wanted)} nodes that are to run are not in the project as it is now: "
                f"{preview(unknown)}. Has it changed since? Run it again; without --resume, if that was given."
            )
        return wanted

    def _before(self, unique_id: str) -> tuple[str, ...]:
        node = self.nodes.get(unique_id)
        return node.depends_on if node else ()


def _reach(roots: Iterable[str], edges: Mapping[str, list[str]]) -> set[str]:
    start = set(roots)
    seen: set[str] = set()
    waiting = [other for root in start for other in edges.get(root, ())]
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            waiting.extend(edges.get(here, ()))
    return seen - start


def parents_first(roots: Iterable[str], parents: Callable[[str], Iterable[str]]) -> list[str]:
    """Return nodes and all that they stand on, each after its parents.

    Where some stand on each other, which dbt refuses in words of its own, each is there once, in some order.
    """
    done: dict[str, None] = {}
    entered: set[str] = set()
    for root in roots:
        waiting = [root]
        while waiting:
            here = waiting[-1]
            entered.add(here)
            ahead = [parent for parent in parents(here) if parent not in entered]
            if ahead:
                waiting += ahead
            else:
                done[here] = None
                waiting.pop()
    return list(done)


def load_graph(manifest: Path) -> Graph:
    """Read the slim graph from a manifest.json.

    Raises:
        ConfigError: the file is missing or is no manifest.
    """
    try:
        return read_graph(manifest.read_bytes())
    except OSError as exc:
        raise ConfigError(f"There is no manifest at {manifest}. Run the project once: python -m flows run") from exc
    except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError) as exc:
        raise ConfigError(f"{manifest} is not a dbt manifest. Delete it and run again.") from exc


def read_graph(manifest: bytes) -> Graph:
    """Return the slim graph of the content of a manifest.json."""
    return graph_of(cast(dict[str, Any], orjson.loads(manifest)))


def graph_of(manifest: Mapping[str, Any]) -> Graph:
    """Return the slim graph of a manifest that has been read."""
    nodes: dict[str, Node] = {}
    for section in ("nodes", "sources", "exposures", "unit_tests", "functions", "saved_queries"):
        for unique_id, entry in manifest.get(section, {}).items():
            nodes[unique_id] = _node(unique_id, entry)
    return Graph(_in_build_order(nodes))


def meta_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the meta of a manifest's entry: that of its config, and what stands beside the config."""
    return {**(entry.get("meta") or {}), **((entry.get("config") or {}).get("meta") or {})}


def is_critical(entry: Mapping[str, Any]) -> bool:
    """Say whether the owner of a manifest's entry marked it so: `meta: {critical: true}`, or the tag critical.

    What does not plainly say no counts as yes: a mark that somebody mistyped is meant all the same.
    """
    config = entry.get("config") or {}
    if CRITICAL in (*_tags(entry.get("tags")), *_tags(config.get("tags"))):
        return True
    mark = meta_of(entry).get(CRITICAL)
    return mark is not None and str(mark).strip().lower() not in _NOT_CRITICAL


def _tags(named: object) -> tuple[object, ...]:
    return (named,) if isinstance(named, str) else tuple(cast(Iterable[object], named or ()))


def _in_build_order(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Put unit tests where `dbt build` has them: before the model that they are about, and after what it reads."""
    ordered = dict(nodes)
    for node in nodes.values():
        if node.resource_type == "unit_test":
            for tested in (unique_id for unique_id in node.depends_on if unique_id in nodes):
                model = ordered[tested]
                ordered[node.unique_id] = replace(node, depends_on=nodes[tested].depends_on, tests=(tested,))
                ordered[tested] = replace(model, depends_on=(*model.depends_on, node.unique_id))
        elif node.resource_type == "test":
            ordered[node.unique_id] = replace(node, tests=node.depends_on)
    return ordered


def _node(unique_id: str, entry: Mapping[str, Any]) -> Node:
    config = entry.get("config") or {}
    materialized = config.get("materialized") or ""
    return Node(
        unique_id=unique_id,
        name=name_of(unique_id, entry["name"]),
        resource_type=entry["resource_type"],
        fqn=".".join(entry.get("fqn") or ()),
        depends_on=tuple((entry.get("depends_on") or {}).get("nodes") or ()),
        materialized=materialized,
        tags=tuple(entry.get("tags") or ()),
        path=entry.get("original_file_path") or "",
        severity=str(config.get("severity") or "").lower(),
        description=entry.get("description") or "",
        relation=entry.get("relation_name"),
        is_incremental=materialized == "incremental",
        is_critical=is_critical(entry),
        group=config.get("group") or "",
        where=str(config.get("where") or ""),
        has_freshness=entry["resource_type"] == "source" and _is_checked(entry),
    )


def _is_checked(source: Mapping[str, Any]) -> bool:
    limits = source.get("freshness") or (source.get("config") or {}).get("freshness") or {}
    return any((limits.get(limit) or {}).get("count") is not None for limit in ("warn_after", "error_after"))
