"""The tables of a Snowflake database (see Tables)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flows.warehouses.raw_snowflake import connect_snowflake
from flows.warehouses.raw_tables import first_line, quoted
from flows.warehouses.tables import parts_of, plain, with_places
from infrastructure.errors import ConfigError, UpstreamUnavailable

_TYPES = {"text": "varchar", "integer": "number(38, 0)", "timestamp": "timestamp_ntz", "boolean": "boolean"}


@contextmanager
def open_snowflake(target: str, settings: Mapping[str, Any]) -> Iterator[SnowflakeTables]:
    """Connect to a target's Snowflake database, and close the connection at the end.

    Raises: as `flows.warehouses.raw_snowflake.open_snowflake`.
    """
    connection = connect_snowflake(target, settings)
    try:
        yield SnowflakeTables(connection, str(settings.get("database")))
    finally:
        connection.close()


class SnowflakeTables:
    """See Tables. A clone shares the storage of what it was made from, and is made at once."""

    warehouse = "snowflake"
    has_transactional_ddl = False

    def __init__(self, connection: Any, database: str) -> None:  # noqa: ANN401  (the connector need not be there)
        self._connection = connection
        self._database = database
        self._is_inside = False

    def rows(self, query: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        with self._readable_errors(), self._connection.cursor() as cursor:
            cursor.execute(*_bound(query, values))
            names = [str(column[0]).lower() for column in cursor.description]
            found = [dict(zip(names, map(plain, row), strict=True)) for row in cursor.fetchall()]
        self._commit()
        return found

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        with self._readable_errors(), self._connection.cursor() as cursor:
            cursor.execute(*_bound(statement, values))
            changed = max(int(cursor.rowcount or 0), 0)
        self._commit()
        return changed

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._is_inside:
            yield
            return
        self._is_inside = True
        try:
            yield
            with self._readable_errors():
                self._connection.commit()
        except BaseException:
            self._connection.rollback()
            raise
        finally:
            self._is_inside = False

    def exists(self, relation: str) -> bool:
        return self._kind(relation) is not None

    def is_view(self, relation: str) -> bool:
        return "VIEW" in (self._kind(relation) or "")

    def columns(self, relation: str) -> dict[str, str]:
        place, names = self._named(relation)
        found = self.rows(
            "select column_name, data_type, numeric_precision, numeric_scale "
            f"from {place}.information_schema.columns where table_schema = ? and table_name = ? "
            "order by ordinal_position",
            names,
        )
        return {_as_written(row["column_name"]): _type(row) for row in found}

    def copy(self, relation: str, to: str) -> None:
        if self.is_view(to):
            self.drop(to)
        # dbt's tables are transient, and a transient table can't be cloned to a permanent one.
        place, names = self._named(relation)
        found = self.rows(
            f"select is_transient from {place}.information_schema.tables where table_schema = ? and table_name = ?",
            names,
        )
        kind = "transient table" if found and found[0]["is_transient"] == "YES" else "table"
        self.execute(f"create or replace {kind} {to} clone {relation} copy grants")

    def drop(self, relation: str) -> None:
        kind = self._kind(relation)
        if kind:
            words = {"VIEW": "view", "MATERIALIZED VIEW": "materialized view"}
            self.execute(f"drop {words.get(kind, 'table')} if exists {relation}")

    def view_statement(self, relation: str) -> str | None:
        if not self.is_view(relation):
            return None
        return str(self.rows("select get_ddl('VIEW', ?, true) as statement", [relation])[0]["statement"]).rstrip(";")

    def put_view(self, relation: str, statement: str) -> None:
        self.execute(statement)

    def make_schema(self, schema: str) -> None:
        self.execute(f"create schema if not exists {self._database}.{self.column(schema)}")

    def placed(self, schema: str, name: str) -> str:
        return f"{self._database}.{self.column(schema)}.{self.column(name)}"

    def column(self, name: str) -> str:
        # Left unquoted, as dbt leaves it, a name is the same in whatever case it is written.
        return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*", name) else quoted(name)

    def type_of(self, kind: str) -> str:
        return _TYPES[kind]

    def _named(self, relation: str) -> tuple[str, list[str]]:
        """Return the database of a relation as SQL has it, and the schema and name as the catalog holds them."""
        found = [name if is_quoted else name.upper() for name, is_quoted in parts_of(relation)]
        if len(found) < 2:
            raise ConfigError(f"{relation} names no schema, which Snowflake's tables have to be named with.")
        return (quoted(found[0]) if len(found) == 3 else self._database), found[-2:]

    def _kind(self, relation: str) -> str | None:
        place, names = self._named(relation)
        # A view is in `tables` too, but not in that of every server that speaks Snowflake's protocol.
        found = self.rows(
            f"select table_type from {place}.information_schema.tables where table_schema = ? and table_name = ? "
            f"union all select 'VIEW' from {place}.information_schema.views where table_schema = ? and table_name = ?",
            names * 2,
        )
        return str(found[0]["table_type"]).upper() if found else None

    def _commit(self) -> None:
        # The session does not commit by itself, so that a transaction needs no statement of its own.
        if not self._is_inside:
            with self._readable_errors():
                self._connection.commit()

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        import snowflake.connector.errors as errors  # pyright: ignore[reportMissingImports]

        try:
            yield
        except errors.ProgrammingError as exc:
            raise ConfigError(f"Database {self._database} refused a statement ({first_line(exc)}).") from exc
        except errors.Error as exc:
            raise UpstreamUnavailable(
                f"Database {self._database} stopped answering ({first_line(exc)}). Run again."
            ) from exc


def _as_written(name: str) -> str:
    return name.lower() if name.isupper() or re.fullmatch(r"[A-Z0-9_$]+", name) else name


def _type(row: Mapping[str, Any]) -> str:
    kind = str(row["data_type"]).lower()
    if row["numeric_precision"] is None or kind not in ("number", "decimal", "numeric"):
        return kind
    return f"{kind}({row['numeric_precision']},{row['numeric_scale']})"


def _bound(sql: str, values: Sequence[object]) -> tuple[str, tuple[object, ...] | None]:
    if not values:
        return sql, None
    return with_places(sql.replace("%", "%%"), ["%s"] * len(values), has_escapes=True), tuple(values)
