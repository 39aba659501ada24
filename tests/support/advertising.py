"""A small project whose raw data, loaded by two Airbyte connections, tests change as they like."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infrastructure.profiles import load_profile

PROJECT = str(Path(__file__).parents[1] / "projects" / "advertising")
ADS = "00000000-0000-4000-8000-00000000000a"
CRM = "00000000-0000-4000-8000-00000000000b"


@dataclass(frozen=True)
class Advertising:
    """The project on a DuckDB file of its own."""

    target: str

    def load(self, *rows: tuple[Any, ...], at: str = "2026-11-21 09:30:00") -> None:
        """Put rows of day, channel and amount in the place of those that were there, as a sync at a time would."""
        with closing(self._open()) as connection:
            connection.execute("create schema if not exists raw")
            connection.execute(
                "create or replace table raw.spend (spent_on date, channel text, amount decimal(10, 2), "
                "extracted_at timestamp)"
            )
            connection.executemany("insert into raw.spend values (?, ?, ?, ?)", [[*row, at] for row in rows])
            connection.execute(
                "create table if not exists raw.people as select 1 as person_id, timestamp '2026-11-20' as extracted_at"
            )

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with closing(self._open()) as connection:
            return connection.execute(query).fetchall()

    def _open(self) -> Any:
        import duckdb

        return duckdb.connect(str(load_profile(self.target).output["path"]))
