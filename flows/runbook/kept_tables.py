"""The schema beside a target's own in which procedures keep what they may have to restore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.warehouses.warehouse import Warehouse
    from infrastructure.profiles import Profile


class KeptTables:
    """The schema <schema of the target>_backup."""

    def __init__(self, tables: Warehouse, profile: Profile) -> None:
        own = profile.output.get("schema") or profile.output.get("dataset") or profile.target
        self.schema = f"{own}_backup"
        self._tables = tables

    def prepare(self) -> None:
        """Create the schema, if it does not exist."""
        self._tables.make_schema(self.schema)

    def relation(self, name: str) -> str:
        """Return the relation of a name in this schema."""
        return self._tables.placed(self.schema, name)

    def make_table(self, name: str, columns: Mapping[str, str]) -> None:
        """Create a table, if it does not exist.

        Args:
            columns: kind by name, as `Warehouse.type_of` takes them.
        """
        relation = self.relation(name)
        if not self._tables.exists(relation):
            declared = ", ".join(f"{column} {self._tables.type_of(kind)}" for column, kind in columns.items())
            self._tables.execute(f"create table {relation} ({declared})")
