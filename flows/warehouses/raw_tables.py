"""Raw tables: what a loader fills, how its rows are cut into batches, and when a table is not the loader's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from infrastructure.errors import ConfigError

# Column → value it must equal, or a list of values of which it must be one.
Where = Mapping[str, object]


@dataclass(frozen=True)
class RawTable:
    """Describe a raw table: its name, and its columns with types in the words of DuckDB and PostgreSQL."""

    name: str
    columns: tuple[tuple[str, str], ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Return the column names in the order rows are given in."""
        return tuple(name for name, _ in self.columns)


def check_columns(schema: str, table: RawTable, found: Iterable[str]) -> None:
    """Refuse a table that is there with other columns than ours.

    Raises:
        ConfigError: naming the columns on either side.
    """
    there = list(found)
    missing = [name for name in table.column_names if name not in there]
    foreign = [name for name in there if name not in table.column_names]
    if missing or foreign:
        raise ConfigError(
            f"{schema}.{table.name} is there already, but it is not the table this loader writes: it lacks "
            f"{', '.join(missing) or 'nothing'} and has {', '.join(foreign) or 'nothing'} besides. "
            "Nothing was written. Drop it if it is not needed, or load into another schema "
            "(--raw-schema NAME, and the dbt variable raw_schema)."
        )


def batches(rows: Iterable[Sequence[object]], size: int) -> Iterator[list[Sequence[object]]]:
    """Cut rows into lists of at most `size`; they are never all in memory."""
    batch: list[Sequence[object]] = []
    for row in rows:
        batch.append(row)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch
