"""Raw tables in a Snowflake database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from flows.warehouses.raw_tables import BATCH_ROWS, RawTable, Where, batches, check_columns, first_line
from infrastructure.connection_check.check import explain
from infrastructure.connection_check.reachability import require_reachable
from infrastructure.errors import ConfigError, UpstreamUnavailable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# One insert takes at most 16,384 rows of values.
_ROWS_PER_INSERT = 5_000


@contextmanager
def open_snowflake(target: str, settings: Mapping[str, Any], schema: str) -> Iterator[SnowflakeWarehouse]:
    """Connect to a target's Snowflake database, and close the connection at the end.

    Raises:
        ConfigError: the client is not installed, or Snowflake does not accept the sign-in.
        UpstreamUnavailable: nothing answers there.
    """
    # Left unquoted, as dbt leaves it, a name is the same in whatever case it is written.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", schema):
        raise ConfigError(f"{schema!r} is no name for a schema in Snowflake: give one such as raw.")
    connection = connect_snowflake(target, settings)
    try:
        yield SnowflakeWarehouse(connection, f"Database {settings.get('database')}", schema)
    finally:
        connection.close()


def connect_snowflake(target: str, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401  (the connector's own class)
    """Connect to a target's account, in UTC and without autocommit.

    Raises: as `open_snowflake`.
    """
    try:
        import snowflake.connector  # pyright: ignore[reportMissingImports]
        from dbt.adapters.snowflake.connections import SnowflakeCredentials  # pyright: ignore[reportMissingImports]
    except ImportError as exc:
        raise ConfigError(
            f"Target {target} is on Snowflake, and its client is not installed: uv sync --extra snowflake"
        ) from exc
    require_reachable(target, settings)
    # dbt's own class, so that every way of signing in works here as it does there.
    known = {field.name for field in fields(SnowflakeCredentials)}
    credentials = SnowflakeCredentials(**{name: value for name, value in settings.items() if name in known})
    parameters = {"QUERY_TAG": settings.get("query_tag") or '{"app": "tributary"}', "TIMEZONE": "UTC"}
    try:
        return snowflake.connector.connect(
            account=credentials.account,
            database=credentials.database,
            warehouse=credentials.warehouse,
            role=credentials.role,
            autocommit=False,
            session_parameters=parameters | dict(settings.get("session_parameters") or {}),
            **credentials.auth_args(),
        )
    except snowflake.connector.errors.Error as exc:
        cause, mend = explain("snowflake", str(exc))
        raise ConfigError(f"Target {target}: {cause}. {mend}") from exc


class SnowflakeWarehouse:
    """Keep the raw tables of one schema in a Snowflake database (see RawWarehouse)."""

    def __init__(self, connection: Any, place: str, schema: str) -> None:  # noqa: ANN401
        self._connection = connection
        self._place = place
        self._schema = schema
        self._generator: DuckDBPyConnection | None = None
        self._notes: dict[str, str] = {}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all that is done inside, or nothing of it; schemas, new tables and comments are outside of it."""
        import snowflake.connector.errors as errors  # pyright: ignore[reportMissingImports]

        try:
            try:
                yield
                self._connection.commit()
                # A comment would commit what was done before it.
                for name, note in self._notes.items():
                    self._execute(f"comment on table {self._schema}.{name} is %s", [note])
            except BaseException:
                self._connection.rollback()
                raise
            finally:
                self._notes = {}
                if self._generator is not None:
                    self._generator.close()
                    self._generator = None
        except errors.ProgrammingError as exc:
            raise ConfigError(f"{self._place} refused the load ({first_line(exc)}). Nothing was changed.") from exc
        except errors.Error as exc:
            raise UpstreamUnavailable(
                f"{self._place} stopped working on the load ({first_line(exc)}). Nothing was changed; run again."
            ) from exc

    def prepare(self, tables: Sequence[RawTable]) -> None:
        """Create the schema and the tables that are missing."""
        self._execute(f"create schema if not exists {self._schema}")
        for table in tables:
            found = self._rows(
                "select column_name from information_schema.columns "
                "where table_schema = upper(%s) and table_name = upper(%s)",
                [self._schema, table.name],
            )
            if found:
                check_columns(self._schema, table, [name.lower() for (name,) in found])
            else:
                columns = ", ".join(f"{name} {_type(kind)}" for name, kind in table.columns)
                self._execute(f"create table {self._name(table)} ({columns})")

    def append(self, table: RawTable, rows: Iterable[Sequence[object]]) -> int:
        """Add rows in batches, and return how many."""
        places = ", ".join(["%s"] * len(table.columns))
        statement = f"insert into {self._name(table)} ({', '.join(table.column_names)}) values ({places})"
        added = 0
        with self._connection.cursor() as cursor:
            for batch in batches(rows):
                for start in range(0, len(batch), _ROWS_PER_INSERT):
                    cursor.executemany(statement, [tuple(row) for row in batch[start : start + _ROWS_PER_INSERT]])
                added += len(batch)
        return added

    def delete(self, table: RawTable, where: Where) -> int:
        """Delete the rows that fit, and return how many."""
        condition, values = _condition(where)
        return self._execute(f"delete from {self._name(table)} where {condition}", values)

    def select(self, table: RawTable, columns: Sequence[str], where: Where) -> Iterator[tuple[Any, ...]]:
        """Stream columns of the rows that fit."""
        condition, values = _condition(where)
        with self._connection.cursor() as cursor:
            cursor.execute(f"select {', '.join(columns)} from {self._name(table)} where {condition}", values)
            while rows := cursor.fetchmany(BATCH_ROWS):
                yield from rows

    def count(self, table: RawTable, where: Where) -> int:
        """Count the rows that fit."""
        condition, values = _condition(where)
        return int(self._rows(f"select count(*) from {self._name(table)} where {condition}", values)[0][0])

    def generator(self) -> DuckDBPyConnection:
        """Return a DuckDB connection in memory, which lives until the transaction ends."""
        if self._generator is None:
            import duckdb

            self._generator = duckdb.connect(":memory:")
        return self._generator

    def replace(self, table: RawTable, query: str) -> int:
        """Replace all rows by those of a query on the generator, and return how many there are."""
        # Not truncated, which would commit at once.
        self._execute(f"delete from {self._name(table)}")
        result = self.generator().execute(f"select {', '.join(table.column_names)} from ({query})")

        def rows() -> Iterator[tuple[Any, ...]]:
            while batch := result.fetchmany(BATCH_ROWS):
                yield from batch

        return self.append(table, rows())

    def note(self, table: RawTable) -> str | None:
        """Read the comment on a table; None when there is none."""
        if table.name in self._notes:
            return self._notes[table.name]
        rows = self._rows(
            "select comment from information_schema.tables where table_schema = upper(%s) and table_name = upper(%s)",
            [self._schema, table.name],
        )
        return (rows[0][0] or None) if rows else None

    def annotate(self, table: RawTable, note: str) -> None:
        """Put a comment on a table, when the transaction has come to its good end."""
        self._notes[table.name] = note

    def _name(self, table: RawTable) -> str:
        return f"{self._schema}.{table.name}"

    def _execute(self, statement: str, values: Sequence[object] = ()) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, tuple(values) or None)
            return int(cursor.rowcount or 0)

    def _rows(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            return cursor.execute(statement, tuple(values) or None).fetchall()


def _type(kind: str) -> str:
    # What `timestamp` alone means, every account can set differently.
    return "timestamp_ntz" if kind == "timestamp" else kind


def _condition(where: Where) -> tuple[str, list[object]]:
    parts: list[str] = []
    values: list[object] = []
    for name, value in where.items():
        wanted = list(value) if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownArgumentType]
        parts.append(f"{name} in ({', '.join(['%s'] * len(wanted))})")
        values += wanted
    return " and ".join(parts) or "true", values
