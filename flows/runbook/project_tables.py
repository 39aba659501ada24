"""What a project declares of its tables: where they are, what names a row, and which hold versions of something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from flows.engine.artifacts.graph import meta_of
from flows.engine.context.command import DbtCommand
from flows.engine.process.listing import list_manifest
from infrastructure.errors import ConfigError, preview

if TYPE_CHECKING:
    from flows.engine.context.project import Project
    from infrastructure.profiles import Profile

# dbt's names of a snapshot's columns, where the project gives no others.
_SNAPSHOT_COLUMNS = {
    "dbt_valid_from": "dbt_valid_from",
    "dbt_valid_to": "dbt_valid_to",
    "dbt_scd_id": "dbt_scd_id",
    "dbt_updated_at": "dbt_updated_at",
    "dbt_is_deleted": "dbt_is_deleted",
}
_HOLD_ROWS = frozenset({"table", "incremental", "snapshot", "seed"})
_SCD2_FIELDS = frozenset({"key", "current", "from", "to", "superseded", "recorded", "inserted", "id"})


@dataclass(frozen=True)
class Versions:
    """A table of versions, each of a key, true from one moment up to, not including, another.

    Attributes:
        key: the columns that name what has versions.
        begins, ends: columns; `ends` holds `open_end` while the version holds.
        open_end: SQL; "null" unless a snapshot says otherwise.
        current: the column that says whether a version holds now; None where only `ends` tells.
        superseded: the column that marks a version which holds at no time any more; None where there is none.
        recorded: the column with the moment a version was entered; None where nobody keeps it.
        inserted: the column with the moment it reached the warehouse.
        may_end: whether a key may be without a version that holds now, and have gaps: what was deleted at its source.
    """

    unique_id: str
    name: str
    relation: str
    key: tuple[str, ...]
    begins: str
    ends: str
    open_end: str = "null"
    current: str | None = None
    superseded: str | None = None
    recorded: str | None = None
    inserted: str | None = None
    version_id: str | None = None
    may_end: bool = False
    is_snapshot: bool = False


@dataclass(frozen=True)
class ProjectTables:
    """The manifest of a project for a target, and the nodes that a selection means."""

    document: Mapping[str, Any]
    selected: tuple[str, ...]

    @property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the nodes of the manifest by unique id."""
        return self.document["nodes"]

    def tables(self) -> list[Mapping[str, Any]]:
        """Return the selected nodes that hold rows of their own."""
        return [node for node in self._selected() if materialized(node) in _HOLD_ROWS and node.get("relation_name")]

    def views(self) -> list[Mapping[str, Any]]:
        """Return all views of the project, each after what it stands on."""
        found = {key: node for key, node in self.nodes.items() if materialized(node) == "view"}
        ordered: dict[str, Mapping[str, Any]] = {}

        def place(unique_id: str) -> None:
            node = self.nodes.get(unique_id)
            if node is None or unique_id in ordered:
                return
            for parent in (node.get("depends_on") or {}).get("nodes") or ():
                place(parent)
            if unique_id in found:
                ordered[unique_id] = node

        for unique_id in found:
            place(unique_id)
        return list(ordered.values())

    def versions(self) -> list[Versions]:
        """Return the selected tables of versions: models that say so, and snapshots.

        Raises:
            ConfigError: what a model says of itself is incomplete.
        """
        found: list[Versions] = []
        for node in self._selected():
            if node["resource_type"] == "snapshot":
                found += _snapshot(node)
            elif declared := (meta_of(node).get("scd2")):
                found.append(_model(node, declared))
        return sorted(found, key=lambda one: one.name)

    def row_key(self, unique_id: str) -> tuple[str, ...]:
        """Return the columns that name a row of a table, which a test proves; empty where none does."""
        named = (meta_of(self.nodes[unique_id]).get("key")) or ()
        if named:
            return (named,) if isinstance(named, str) else tuple(named)
        singles: list[tuple[str, ...]] = []
        several: list[tuple[str, ...]] = []
        for node in self.nodes.values():
            about = cast(Mapping[str, Any], node.get("test_metadata") or {})
            if node.get("attached_node") != unique_id or not about or (node.get("config") or {}).get("where"):
                continue
            arguments = cast(Mapping[str, Any], about.get("kwargs") or {})
            if about["name"] == "unique":
                singles.append((str(arguments.get("column_name")),))
            elif about["name"].startswith("unique_combination"):
                columns = arguments.get("columns") or arguments.get("combination_of_columns") or ()
                several.append(tuple(map(str, columns)))
        found = sorted(singles) or sorted(several)
        return found[0] if found else ()

    def entity_key(self, unique_id: str) -> tuple[str, ...]:
        """Return what names the same in two targets: the key of a row, or what a snapshot's rows are versions of."""
        node = self.nodes[unique_id]
        if materialized(node) != "snapshot":
            return self.row_key(unique_id)
        key = (node.get("config") or {}).get("unique_key") or ()
        return (key,) if isinstance(key, str) else tuple(key)

    def named(self, name: str) -> Mapping[str, Any] | None:
        """Return the model, seed or snapshot of a name; None when there is none."""
        return next(
            (node for node in self.nodes.values() if node["name"] == name and materialized(node) is not None), None
        )

    def _selected(self) -> Iterator[Mapping[str, Any]]:
        for unique_id in self.selected:
            if unique_id in self.nodes:
                yield self.nodes[unique_id]


def read_declared(project: Project, profile: Profile, select: str | None = None) -> ProjectTables:
    """Have dbt parse the project for a target, and return what it declares.

    Args:
        select: dbt selection; everything when None.

    Raises:
        ConfigError: the project or the selection is wrong.
        DbtRunFailed: the project does not compile.
    """
    kinds = ("--resource-type", "model", "--resource-type", "seed", "--resource-type", "snapshot")
    selected, manifest = list_manifest(DbtCommand("ls", select=select, flags=kinds), project, profile)
    return ProjectTables(orjson.loads(manifest), tuple(selected))


def materialized(node: Mapping[str, Any]) -> str | None:
    """Return how a node is kept in the warehouse; None for one that is not, such as a test."""
    if node["resource_type"] not in ("model", "seed", "snapshot"):
        return None
    return str((node.get("config") or {}).get("materialized") or "")


def _model(node: Mapping[str, Any], declared: object) -> Versions:
    fields = cast(Mapping[str, Any], declared) if isinstance(declared, Mapping) else {}
    missing = [name for name in ("key", "from", "to") if not fields.get(name)]
    unknown = sorted(set(fields) - _SCD2_FIELDS)
    if missing or unknown:
        raise ConfigError(
            f"The model {node['name']} says in its meta that it holds versions, and "
            + (f"lacks {preview(missing)}" if missing else f"names {preview(unknown)}, which nobody knows")
            + ". Write: meta: {scd2: {key: …, from: …, to: …, current: …}}; superseded, recorded, inserted and id "
            f"may be added ({node.get('patch_path') or node.get('original_file_path')})."
        )
    return Versions(
        unique_id=node["unique_id"],
        name=node["name"],
        relation=node["relation_name"],
        key=_columns(fields["key"]),
        begins=fields["from"],
        ends=fields["to"],
        current=fields.get("current"),
        superseded=fields.get("superseded"),
        recorded=fields.get("recorded"),
        inserted=fields.get("inserted"),
        version_id=fields.get("id"),
    )


def _snapshot(node: Mapping[str, Any]) -> Iterator[Versions]:
    config = cast(Mapping[str, Any], node["config"])
    given = cast(Mapping[str, str], config.get("snapshot_meta_column_names") or {})
    names = _SNAPSHOT_COLUMNS | {name: column for name, column in given.items() if column}
    key = _columns(config.get("unique_key"))
    if not key or not node.get("relation_name"):
        return
    yield Versions(
        unique_id=node["unique_id"],
        name=node["name"],
        relation=node["relation_name"],
        key=key,
        begins=names["dbt_valid_from"],
        ends=names["dbt_valid_to"],
        open_end=str(config.get("dbt_valid_to_current") or "null"),
        inserted=names["dbt_updated_at"],
        version_id=names["dbt_scd_id"],
        may_end=config.get("hard_deletes") == "invalidate" or bool(config.get("invalidate_hard_deletes")),
        is_snapshot=True,
    )


def _columns(named: object) -> tuple[str, ...]:
    if isinstance(named, str):
        return (named,)
    return tuple(map(str, cast(Sequence[object], named or ())))
