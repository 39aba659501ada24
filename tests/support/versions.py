"""A target on which the project `versions` is built, and ways to look at its tables and to damage them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.engine.context.project import read_project
from flows.engine.context.state import state_of
from flows.pipelines.full import dbt_full_pipeline
from flows.warehouses.door import open_warehouse
from flows.warehouses.warehouse import Warehouse
from infrastructure.profiles import Profile, load_profile

PROJECT = str(Path(__file__).parents[1] / "projects" / "versions")
TABLES = ("rate_versions", "payments", "totals", "player_snapshot")

RAW = """
create table {raw}.rates (
    version_id varchar, player varchar, kind varchar, rate numeric(18, 2), valid_from timestamp, valid_to timestamp,
    is_current boolean, is_superseded boolean, recorded_at timestamp
);
insert into {raw}.rates values
    ('a1', 'ann', 'gig', 10.10, '2026-01-01', '2026-02-01', false, false, '2026-01-01'),
    ('a2', 'ann', 'gig', 20.20, '2026-02-01', null, true, false, '2026-02-01 09:00:00'),
    ('b1', 'bob', 'gig', 30.30, '2026-01-01', null, true, false, '2026-01-05'),
    ('b2', 'bob', 'tour', 5.05, '2026-01-01', null, true, false, '2026-01-01');
create table {raw}.paid (player varchar, amount numeric(18, 2));
insert into {raw}.paid values ('ann', 20.20), ('bob', 35.35);
create table {raw}.switch (value bigint);
insert into {raw}.switch values (1)
"""


@dataclass(frozen=True)
class Place:
    """A target with raw tables of its own."""

    target: str

    @property
    def profile(self) -> Profile:
        return load_profile(self.target)

    @property
    def schema(self) -> str:
        return str(self.profile.output["schema"])

    def load(self) -> None:
        """Make the raw tables."""
        with open_warehouse(self.profile) as tables, tables.transaction():
            tables.make_schema("raw")
            for statement in RAW.format(raw="raw").split(";"):
                tables.execute(statement)

    def build(self) -> None:
        """Build the project for the first time."""
        dbt_full_pipeline(target=self.target, project_dir=PROJECT)

    def execute(self, *statements: str) -> None:
        """Run statements; names of the project's tables need no schema."""
        with open_warehouse(self.profile) as tables:
            for statement in statements:
                tables.execute(self._placed(tables, statement))

    def rows(self, query: str) -> list[dict[str, Any]]:
        with open_warehouse(self.profile) as tables:
            return tables.rows(self._placed(tables, query))

    def checksums(self) -> dict[str, str]:
        """Return a checksum of all that each table holds, columns and types included."""
        found: dict[str, str] = {}
        with open_warehouse(self.profile) as tables:
            for name in TABLES:
                relation = tables.placed(self.schema, name)
                rows = sorted(repr(list(row.items())) for row in tables.rows(f"select * from {relation}"))
                text = repr(tables.columns(relation)) + "\n".join(rows)
                found[name] = hashlib.sha256(text.encode()).hexdigest()
        return found

    def kept(self) -> list[str]:
        """Return what there is in the schema of kept tables, but for its journals."""
        found = self.rows(
            f"select table_name as name from information_schema.tables where table_schema = '{self.schema}_backup'"
        )
        return sorted(row["name"] for row in found if row["name"] not in ("scd2_repairs", "refreshes", "refreshed"))

    def state(self) -> Path:
        import os

        return state_of(read_project(PROJECT), self.target, os.environ).folder

    def _placed(self, tables: Warehouse, text: str) -> str:
        import re

        for name in (*TABLES, "payments_seen"):
            text = re.sub(rf"(?<![\w.\"']){name}\b", tables.placed(self.schema, name), text)
        return text
