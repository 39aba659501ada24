"""What a dbt manifest says of a node that matters in an alert: whose it is, who reads it, what must not be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import orjson

from flows.engine.artifacts.graph import is_critical, meta_of

_SECTIONS = ("nodes", "sources", "exposures", "unit_tests", "snapshots")
# In dbt's meta, of a node or of a column.
OWNER, PERSONAL = "owner", "contains_personal_data"
# What `unique`, `accepted_values` and `relationships` of dbt call the column that they are about.
_SHOWN_AS = frozenset({"unique_field", "value_field", "from_field"})


class Manifest:
    """A manifest, and the questions that alerts ask of it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._groups: dict[str, Any] = {group["name"]: group for group in (document.get("groups") or {}).values()}
        self._nodes: dict[str, Mapping[str, Any]] = {}
        for section in _SECTIONS:
            self._nodes.update(document.get(section) or {})
        self.project = str((document.get("metadata") or {}).get("project_name") or "")

    def __contains__(self, unique_id: str) -> bool:
        return unique_id in self._nodes

    def is_critical(self, unique_id: str) -> bool:
        """Tell whether a node is marked as critical."""
        return is_critical(self._node(unique_id))

    def stores_failures(self, unique_id: str) -> bool:
        """Tell whether the project has a test store the rows that it finds, whatever a command says."""
        return bool((self._node(unique_id).get("config") or {}).get("store_failures"))

    def owners(self, unique_id: str) -> tuple[str, ...]:
        """Return who answers for a node: by its meta, its group, else by the exposures that stand on it.

        A test belongs to whoever owns what it tests.
        """
        found: dict[str, None] = {}
        for node in self._about(unique_id):
            found.update(dict.fromkeys(_names(meta_of(node).get(OWNER))))
            group = self._groups.get(str((node.get("config") or {}).get("group") or node.get("group") or ""))
            found.update(dict.fromkeys(_names((group or {}).get("owner"))))
        if not found:
            for exposure in self._readers(unique_id):
                found.update(dict.fromkeys(_names(exposure.get("owner"))))
        return tuple(found)

    def affects(self, unique_id: str) -> tuple[str, ...]:
        """Return the exposures that stand on a node, such as dashboards, by the names that people know."""
        return tuple(str(exposure.get("label") or exposure["name"]) for exposure in self._readers(unique_id))

    def tags(self, unique_id: str) -> tuple[str, ...]:
        """Return the tags of a node and of what it tests."""
        return tuple(dict.fromkeys(str(tag) for node in self._about(unique_id) for tag in node.get("tags") or ()))

    def tested(self, unique_id: str) -> list[str]:
        """Return what a test is about; nothing for other nodes."""
        node = self._node(unique_id)
        if node.get("resource_type") not in ("test", "unit_test"):
            return []
        return [str(node["attached_node"])] if node.get("attached_node") else _parents(node)

    def upstream(self, unique_ids: Iterable[str]) -> set[str]:
        """Return all that these nodes stand on, themselves included."""
        seen: set[str] = set()
        waiting = list(unique_ids)
        while waiting:
            unique_id = waiting.pop()
            if unique_id not in seen:
                seen.add(unique_id)
                waiting.extend(_parents(self._node(unique_id)))
        return seen

    def is_personal(self, unique_id: str) -> bool:
        """Tell whether a test reads anything that is marked, as a whole, as personal data, however far upstream.

        So does a test of a column that is marked itself: whatever its rows are called, they hold that column.
        """
        node = self._node(unique_id)
        lineage = self.upstream([unique_id])
        if any(meta_of(self._node(found)).get(PERSONAL) for found in lineage):
            return True
        return str(node.get("column_name") or "").lower() in self.personal_columns(unique_id)

    def personal_columns(self, unique_id: str) -> set[str]:
        """Return the names of the columns marked as personal in anything that a test reads, in lower case."""
        return {
            name
            for found in self.upstream([unique_id])
            for name, column in _columns(self._node(found))
            if meta_of(column).get(PERSONAL)
        }

    def known_columns(self, unique_id: str) -> set[str]:
        """Return the names of the columns that are described in what a test tests, in lower case.

        Where a test is about one column, also the names by which dbt's own tests show that column's values.
        """
        node = self._node(unique_id)
        described = {name for found in _parents(node) for name, _ in _columns(self._node(found))}
        return described | _SHOWN_AS if node.get("column_name") else described

    def null_rows(self, unique_id: str) -> str | None:
        """Return a query for the rows that a `not_null` test is about; None for other tests."""
        node = self._node(unique_id)
        tested = self._node(next(iter(self.tested(unique_id)), ""))
        is_not_null = (node.get("test_metadata") or {}).get("name") == "not_null"
        column, relation = node.get("column_name"), tested.get("relation_name")
        if not (is_not_null and column and relation):
            return None
        where = (node.get("config") or {}).get("where")
        return f"select * from {relation} where {column} is null" + (f" and ({where})" if where else "")

    def _node(self, unique_id: str) -> Mapping[str, Any]:
        return self._nodes.get(unique_id) or {}

    def _about(self, unique_id: str) -> list[Mapping[str, Any]]:
        """Return a node and, for a test, what it tests."""
        return [self._node(unique_id), *(self._node(found) for found in self.tested(unique_id))]

    def _readers(self, unique_id: str) -> list[Mapping[str, Any]]:
        about = {str(node.get("unique_id")) for node in self._about(unique_id)}
        return [self._nodes[exposure] for exposure, lineage in self._lineages if about & lineage]

    @cached_property
    def _lineages(self) -> list[tuple[str, set[str]]]:
        exposures = [found for found, node in self._nodes.items() if node.get("resource_type") == "exposure"]
        return [(exposure, self.upstream([exposure])) for exposure in exposures]


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; an empty one where there is none that can be read."""
    try:
        return Manifest(cast(dict[str, Any], orjson.loads(path.read_bytes())))
    except (OSError, orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return Manifest({})


def _parents(node: Mapping[str, Any]) -> list[str]:
    return [str(parent) for parent in (node.get("depends_on") or {}).get("nodes") or ()]


def _columns(node: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(str(name).lower(), column) for name, column in (node.get("columns") or {}).items()]


def _names(owner: object) -> list[str]:
    """Return the names in what people write as an owner: a name, several, or a name with an e-mail address."""
    if isinstance(owner, str):
        return [owner] if owner.strip() else []
    if isinstance(owner, list):
        return [name for entry in cast(list[Any], owner) for name in _names(entry)]
    if isinstance(owner, dict):
        entry = cast(dict[str, Any], owner)
        return _names(entry.get("name") or entry.get("email"))
    return []
