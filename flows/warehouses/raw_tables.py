"""Raw tables, and what a warehouse has to be able to do with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from infrastructure.errors import ConfigError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH_ROWS = 10_000

# Column → value it must equal, or a list of values of which it must be one.
Where = Mapping[str, object]


@dataclass(frozen=True)
class RawTable:
    """Describe a raw table: its name, and its columns with types both warehouses know."""

    name: str
    columns: tuple[tuple[str, str], ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Return the column names in the order rows are given in."""
        return tuple(name for name, _ in self.columns)


class RawWarehouse(Protocol):
    """Read and write the tables of one raw schema; every method but `transaction` belongs inside one.

    All timestamps are naive and mean UTC, in what is written as in what is read.
    """

    def transaction(self) -> AbstractContextManager[None]:
        """Keep all that is done inside or, after an error or a crash, nothing of it.

        Raises:
            ConfigError: the warehouse refused, for instance because a privilege is missing.
            UpstreamUnavailable: the warehouse went away, or another session holds the tables.
        """
        ...

    def prepare(self, tables: Sequence[RawTable]) -> None:
        """Create the schema and the tables that are missing.

        Raises:
            ConfigError: a table is there with other columns, so somebody else's.
        """
        ...

    def append(self, table: RawTable, rows: Iterable[Sequence[object]]) -> int:
        """Add rows in batches, and return how many; the rows are never all in memory."""
        ...

    def delete(self, table: RawTable, where: Where) -> int:
        """Delete the rows that fit, and return how many."""
        ...

    def select(self, table: RawTable, columns: Sequence[str], where: Where) -> Iterator[tuple[Any, ...]]:
        """Stream columns of the rows that fit; read it to its end before the next call."""
        ...

    def count(self, table: RawTable, where: Where) -> int:
        """Count the rows that fit."""
        ...

    def generator(self) -> DuckDBPyConnection:
        """Return the DuckDB connection that `replace` takes its queries to."""
        ...

    def replace(self, table: RawTable, query: str) -> int:
        """Replace all rows by those of a query on `generator`, and return how many there are."""
        ...

    def note(self, table: RawTable) -> str | None:
        """Read the comment on a table; None when there is none."""
        ...

    def annotate(self, table: RawTable, note: str) -> None:
        """Put a comment on a table."""
        ...


def quoted(*names: str) -> str:
    """Quote the parts of an SQL identifier and join them with dots."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def column_list(names: Sequence[str]) -> str:
    """Quote column names for a list in SQL."""
    return ", ".join(quoted(name) for name in names)


def create_table(schema: str, table: RawTable, verb: str = "create table") -> str:
    """Write the statement that creates a raw table."""
    columns = ", ".join(f"{quoted(name)} {sql_type}" for name, sql_type in table.columns)
    return f"{verb} {quoted(schema, table.name)} ({columns})"


def check_columns(schema: str, table: RawTable, found: Sequence[str]) -> None:
    """Refuse a table that is there with other columns than ours.

    Raises:
        ConfigError: naming the columns on either side.
    """
    missing = [name for name in table.column_names if name not in found]
    foreign = [name for name in found if name not in table.column_names]
    if missing or foreign:
        raise ConfigError(
            f"{schema}.{table.name} is there already, but it is not the table this loader writes: it lacks "
            f"{', '.join(missing) or 'nothing'} and has {', '.join(foreign) or 'nothing'} besides. "
            "Nothing was written. Drop it if nobody needs it, or load into another schema "
            "(--raw-schema NAME, and the dbt variable raw_schema)."
        )


def batches(rows: Iterable[Sequence[object]]) -> Iterator[list[Sequence[object]]]:
    """Cut rows into lists of at most BATCH_ROWS."""
    batch: list[Sequence[object]] = []
    for row in rows:
        batch.append(row)
        if len(batch) >= BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, for a message."""
    return str(error).strip().split("\n", 1)[0]
