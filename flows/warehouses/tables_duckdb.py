"""The tables of a DuckDB file (see Tables)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.warehouses.raw_duckdb import connect_file, database_path
from flows.warehouses.raw_tables import first_line, quoted
from flows.warehouses.tables import parts_of, plain
from infrastructure.errors import ConfigError, UpstreamUnavailable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TYPES = {"text": "varchar", "integer": "bigint", "timestamp": "timestamp", "boolean": "boolean"}


@contextmanager
def open_duckdb(target: str, settings: Mapping[str, Any]) -> Iterator[DuckDBTables]:
    """Open a target's DuckDB file, and close it at the end.

    Raises: as `flows.warehouses.raw_duckdb.open_duckdb`.
    """
    path = database_path(target, settings)
    connection = connect_file(path)
    try:
        # A machine's own time zone would shift what is read with one.
        connection.execute("set timezone = 'UTC'")
        yield DuckDBTables(connection, path)
    finally:
        connection.close()


class DuckDBTables:
    """See Tables."""

    warehouse = "duckdb"
    has_transactional_ddl = True

    def __init__(self, connection: DuckDBPyConnection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._is_inside = False

    def rows(self, query: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        with self._readable_errors():
            result = self._connection.execute(query, list(values))
            names = [str(column[0]).lower() for column in result.description or ()]
            return [dict(zip(names, map(plain, row), strict=True)) for row in result.fetchall()]

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        with self._readable_errors():
            found = self._connection.execute(statement, list(values)).fetchone()
        return int(found[0]) if found and isinstance(found[0], int) else 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._is_inside:
            yield
            return
        with self._readable_errors():
            self._connection.begin()
        self._is_inside = True
        try:
            yield
            with self._readable_errors():
                self._connection.commit()
        except BaseException:
            self._rollback()
            raise
        finally:
            self._is_inside = False

    def exists(self, relation: str) -> bool:
        return bool(self._kind(relation))

    def is_view(self, relation: str) -> bool:
        return self._kind(relation) == "VIEW"

    def columns(self, relation: str) -> dict[str, str]:
        return {name: kind for name, kind, _ in self._columns(relation)}

    def copy(self, relation: str, to: str) -> None:
        if self.is_view(to):
            self.drop(to)
        found = self._columns(relation)
        # Not `create table … as`, which forgets which columns can't be null.
        declared = ", ".join(f"{quoted(name)} {kind}{'' if null else ' not null'}" for name, kind, null in found)
        names = ", ".join(quoted(name) for name, _, _ in found)
        with self.transaction():
            self.execute(f"create or replace table {to} ({declared})")
            self.execute(f"insert into {to} ({names}) select {names} from {relation}")

    def drop(self, relation: str) -> None:
        kind = self._kind(relation)
        if kind:
            self.execute(f"drop {'view' if kind == 'VIEW' else 'table'} {relation}")

    def view_statement(self, relation: str) -> str | None:
        where, values = _where(relation)
        for name, other in (("catalog", "database_name"), ("schema", "schema_name"), ("name", "view_name")):
            where = where.replace(f"table_{name}", other)
        found = self.rows(f"select sql from duckdb_views() where {where}", values)
        return re.sub(r"(?i)^create view", "create or replace view", str(found[0]["sql"])) if found else None

    def put_view(self, relation: str, statement: str) -> None:
        self.execute(statement)

    def make_schema(self, schema: str) -> None:
        self.execute(f"create schema if not exists {quoted(schema)}")

    def placed(self, schema: str, name: str) -> str:
        return quoted(str(self.rows("select current_database() as database")[0]["database"]), schema, name)

    def column(self, name: str) -> str:
        return quoted(name)

    def type_of(self, kind: str) -> str:
        return _TYPES[kind]

    def _kind(self, relation: str) -> str | None:
        where, values = _where(relation)
        found = self.rows(f"select table_type from information_schema.tables where {where}", values)
        return str(found[0]["table_type"]) if found else None

    def _columns(self, relation: str) -> list[tuple[str, str, bool]]:
        where, values = _where(relation)
        found = self.rows(
            "select column_name, data_type, is_nullable = 'YES' as is_nullable from information_schema.columns "
            f"where {where} order by ordinal_position",
            values,
        )
        return [(row["column_name"], row["data_type"], row["is_nullable"]) for row in found]

    def _rollback(self) -> None:
        import duckdb

        try:
            self._connection.rollback()
        except duckdb.Error:
            # A failed commit has ended the transaction already; its own error says more than this one.
            return

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.TransactionException) as exc:
            raise UpstreamUnavailable(
                f"The DuckDB file {self._path} could not be read or written ({first_line(exc)}). Run again."
            ) from exc
        except duckdb.Error as exc:
            raise ConfigError(f"The DuckDB file {self._path} refused a statement ({first_line(exc)}).") from exc


def _where(relation: str) -> tuple[str, list[str]]:
    """Return the condition that finds a relation in the information schema; DuckDB's names have no case."""
    names = [name for name, _ in parts_of(relation)]
    columns = ("table_catalog", "table_schema", "table_name")[-len(names) :]
    parts = [f"lower({column}) = lower(?)" for column in columns]
    if len(names) < 3:
        parts.append("table_catalog = current_database()")
    if len(names) < 2:
        parts.append("table_schema = current_schema()")
    return " and ".join(parts), names
