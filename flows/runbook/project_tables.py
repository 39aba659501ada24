"""What a project declares about its tables: their relation, the key of a row, and which hold versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from flows.engine.artifacts.manifest import DATA_TYPES, Manifest, Node, Snapshot
from flows.engine.artifacts.manifest_file import texts_in
from flows.engine.context.command import DbtCommand
from flows.engine.process.listing import list_nodes
from infrastructure.errors import ConfigError, preview

if TYPE_CHECKING:
    from flows.engine.context.project import Project
    from infrastructure.profiles import Profile

_SCD2_FIELDS = frozenset({"key", "current", "from", "to", "superseded", "recorded", "inserted", "id"})


@dataclass(frozen=True)
class Versions:
    """A table of versions of keys, each valid from one moment up to, not including, another.

    Attributes:
        key: the columns that identify what has versions.
        begins, ends: columns; `ends` holds `open_end` while the version holds.
        open_end: SQL; "null" unless a snapshot says otherwise.
        current: the column that says whether a version holds now; None where only `ends` tells.
        superseded: the column that marks a version that is no longer valid at any time; None where there is none.
        recorded: the column with the moment a version was entered; None where there is none.
        inserted: the column with the moment it reached the warehouse.
        may_end: whether a key may have gaps and no current version, as when it was deleted at its source.
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
    """The manifest of a project for a target, and the selected nodes."""

    manifest: Manifest
    selected: tuple[str, ...]

    def tables(self) -> list[Node]:
        """Return the selected nodes that are tables."""
        return [node for node in self._selected() if node.holds_rows]

    def views(self) -> list[Node]:
        """Return all views of the project, each after what it depends on."""
        nodes = self.manifest.nodes
        views = (key for key, node in nodes.items() if node.materialized == "view" and node.resource_type in DATA_TYPES)
        return [nodes[unique_id] for unique_id in self.manifest.steps(views)]

    def versions(self) -> list[Versions]:
        """Return the selected tables of versions: models that say so, and snapshots.

        Raises:
            ConfigError: a model's declaration is incomplete.
        """
        found: list[Versions] = []
        for node in self._selected():
            if node.snapshot:
                found += _snapshot(node, node.snapshot)
            elif declared := node.meta.get("scd2"):
                found.append(_model(node, declared))
        return sorted(found, key=lambda one: one.name)

    def row_key(self, unique_id: str) -> tuple[str, ...]:
        """Return the columns that identify a row of a table, as a test proves; empty where none does."""
        if named := texts_in(self.manifest.nodes[unique_id].meta.get("key")):
            return named
        proven = [
            test.unique_columns
            for test in self.manifest.nodes.values()
            if test.attached_to == unique_id and test.unique_columns
        ]
        return min(proven, key=lambda columns: (len(columns) > 1, columns), default=())

    def entity_key(self, unique_id: str) -> tuple[str, ...]:
        """Return the columns that identify a thing in two targets: the key of a row, or of a snapshot's entity."""
        snapshot = self.manifest.nodes[unique_id].snapshot
        return snapshot.key if snapshot else self.row_key(unique_id)

    def named(self, name: str) -> Node | None:
        """Return the model, seed or snapshot of a name; None when there is none."""
        data = (node for node in self.manifest.nodes.values() if node.resource_type in DATA_TYPES)
        return next((node for node in data if node.name == name), None)

    def _selected(self) -> Iterator[Node]:
        for unique_id in self.selected:
            if unique_id in self.manifest.nodes:
                yield self.manifest.nodes[unique_id]


def read_declared(project: Project, profile: Profile, select: str | None = None) -> ProjectTables:
    """Parse the project for a target with dbt, and return what it declares.

    Args:
        select: dbt selection; everything when None.

    Raises:
        ConfigError: the project or the selection is wrong.
        DbtRunFailed: the project does not compile.
    """
    kinds = ("--resource-type", "model", "--resource-type", "seed", "--resource-type", "snapshot")
    selected, manifest = list_nodes(DbtCommand("ls", select=select, flags=kinds), project, profile)
    return ProjectTables(manifest, tuple(selected))


def _model(node: Node, declared: object) -> Versions:
    fields = cast(Mapping[str, Any], declared) if isinstance(declared, Mapping) else {}
    missing = [name for name in ("key", "from", "to") if not fields.get(name)]
    unknown = sorted(set(fields) - _SCD2_FIELDS)
    if missing or unknown:
        raise ConfigError(
            f"The model {node.name} declares in its meta that it holds versions, and "
            + (f"lacks {preview(missing)}" if missing else f"names {preview(unknown)}, which is not a setting")
            + ". Write: meta: {scd2: {key: …, from: …, to: …, current: …}}; superseded, recorded, inserted and id "
            f"may be added ({node.properties_path})."
        )
    return Versions(
        unique_id=node.unique_id,
        name=node.name,
        relation=str(node.relation),
        key=texts_in(fields["key"]),
        begins=fields["from"],
        ends=fields["to"],
        current=fields.get("current"),
        superseded=fields.get("superseded"),
        recorded=fields.get("recorded"),
        inserted=fields.get("inserted"),
        version_id=fields.get("id"),
    )


def _snapshot(node: Node, settings: Snapshot) -> Iterator[Versions]:
    if not settings.key or not node.relation:
        return
    yield Versions(
        unique_id=node.unique_id,
        name=node.name,
        relation=node.relation,
        key=settings.key,
        begins=settings.column("dbt_valid_from"),
        ends=settings.column("dbt_valid_to"),
        open_end=settings.open_end,
        inserted=settings.column("dbt_updated_at"),
        version_id=settings.column("dbt_scd_id"),
        may_end=settings.may_end,
        is_snapshot=True,
    )
