"""Raw tables that tests load and read back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infrastructure.profiles import Profile


@dataclass(frozen=True)
class RawData:
    """Hold a profile to load with, and read what was loaded."""

    profile: Profile
    raw_schema: str
    read: Callable[[str], list[tuple[Any, ...]]]

    def rows(self, table: str, columns: str = "*", suffix: str = "") -> list[tuple[Any, ...]]:
        """Read rows of a raw table, sorted in a way that takes any value."""
        return sorted(self.read(f'select {columns} from "{self.raw_schema}".{table} {suffix}'), key=repr)

    def count(self, table: str) -> int:
        """Count the rows of a raw table."""
        return self.rows(table, "count(*)")[0][0]


def duckdb_raw_in(folder: Path) -> RawData:
    """Return a DuckDB file in a folder to load into."""
    path = folder / "warehouse" / "dev.duckdb"

    def read(query: str) -> list[tuple[Any, ...]]:
        import duckdb

        with closing(duckdb.connect(str(path), read_only=True)) as connection:
            return connection.execute(query).fetchall()

    profile = Profile("dev", "tributary", {"type": "duckdb", "path": str(path), "schema": "analytics"}, {})
    return RawData(profile, "raw", read)
