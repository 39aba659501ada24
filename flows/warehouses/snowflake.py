"""A Snowflake database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, ClassVar

from flows.warehouses.raw_tables import RawTable, Where
from flows.warehouses.relations import parts_of, quoted, with_percent_places
from flows.warehouses.warehouse import Warehouse, fetched, first_line
from infrastructure.connection_check.check import explain
from infrastructure.connection_check.reachability import require_reachable
from infrastructure.errors import ConfigError, TributaryError, UpstreamUnavailable

_KINDS = {"VIEW": "view", "MATERIALIZED VIEW": "materialized view"}


class SnowflakeWarehouse(Warehouse):
    """See Warehouse. A clone shares the storage of what it was made from, and is made at once."""

    kind = "snowflake"
    has_transactional_ddl = False
    # Left unquoted, as dbt leaves it, a name is the same in whatever case it is written.
    schema_name = r"[A-Za-z_][A-Za-z0-9_]*"
    # One insert takes at most 16,384 rows of values.
    batch_rows = 5_000
    _types: ClassVar = {
        "text": "varchar",
        "integer": "number(38, 0)",
        "timestamp": "timestamp_ntz",
        "boolean": "boolean",
    }
    # What `timestamp` alone means, every account can set differently.
    _raw_types: ClassVar = {"timestamp": "timestamp_ntz"}

    def __init__(self, target: str, database: str, connection: Any, raw_schema: str) -> None:  # noqa: ANN401
        super().__init__(target, f"Database {database}", database, raw_schema)
        self._connection = connection
        self._notes: dict[str, str] = {}

    @classmethod
    @contextmanager
    def connected(
        cls,
        target: str,
        settings: Mapping[str, Any],
        raw_schema: str,
        read_only: bool,
    ) -> Iterator[SnowflakeWarehouse]:
        connection = _connect(target, settings)
        try:
            yield cls(target, str(settings.get("database")), connection, raw_schema)
        finally:
            connection.close()

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

    def view_statement(self, relation: str) -> str | None:
        if not self.is_view(relation):
            return None
        return str(self.rows("select get_ddl('VIEW', ?, true) as statement", [relation])[0]["statement"]).rstrip(";")

    def make_schema(self, schema: str) -> None:
        self.execute(f"create schema if not exists {self._database}.{self.column(schema)}")

    def placed(self, schema: str, name: str) -> str:
        return f"{self._database}.{self.column(schema)}.{self.column(name)}"

    def column(self, name: str) -> str:
        # Left unquoted, as dbt leaves it, a name is the same in whatever case it is written.
        return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*", name) else quoted(name)

    @contextmanager
    def loading(self) -> Iterator[None]:
        self._notes = {}
        with super().loading():
            yield
        # A comment would commit what was done before it.
        for table, note in self._notes.items():
            self.execute(f"comment on table {table} is ?", [note])

    def note(self, table: RawTable) -> str | None:
        if self._raw(table) in self._notes:
            return self._notes[self._raw(table)]
        place, names = self._named(self._raw(table))
        found = self.rows(
            f"select comment from {place}.information_schema.tables where table_schema = ? and table_name = ?", names
        )
        return (found[0]["comment"] or None) if found else None

    def annotate(self, table: RawTable, note: str) -> None:
        """Put a comment on a table, when the load has come to its good end."""
        self._notes[self._raw(table)] = note

    def _condition(self, where: Where) -> tuple[str, list[object]]:
        parts: list[str] = []
        values: list[object] = []
        for name, value in where.items():
            wanted = list(value) if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownArgumentType]
            parts.append(f"{self.column(name)} in ({', '.join('?' * len(wanted))})")
            values += wanted
        return " and ".join(parts) or "true", values

    def _query(self, query: str, values: Sequence[object]) -> tuple[list[str], Iterable[Sequence[Any]]]:
        cursor = self._connection.cursor()
        cursor.execute(*_bound(query, values))
        return [str(column[0]).lower() for column in cursor.description], fetched(cursor, self.batch_rows)

    def _run(self, statement: str, values: Sequence[object]) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(*_bound(statement, values))
            return max(int(cursor.rowcount or 0), 0)

    def _insert(self, table: RawTable, batch: Sequence[Sequence[object]]) -> None:
        places = ", ".join(["%s"] * len(table.columns))
        statement = f"insert into {self._raw(table)} ({self._list(table.column_names)}) values ({places})"
        with self._connection.cursor() as cursor:
            cursor.executemany(statement, [tuple(row) for row in batch])

    def _named(self, relation: str) -> tuple[str, list[str]]:
        """Return the database of a relation as SQL has it, and the schema and name as the catalog holds them."""
        found = [name if is_quoted else name.upper() for name, is_quoted in parts_of(relation)]
        if len(found) < 2:
            raise ConfigError(f"{relation} names no schema, which Snowflake's tables have to be named with.")
        return (quoted(found[0]) if len(found) == 3 else self._database), found[-2:]

    def _kind_of(self, relation: str) -> str | None:
        place, names = self._named(relation)
        # A view is in `tables` too, but not in that of every server that speaks Snowflake's protocol.
        found = self.rows(
            f"select table_type from {place}.information_schema.tables where table_schema = ? and table_name = ? "
            f"union all select 'VIEW' from {place}.information_schema.views where table_schema = ? and table_name = ?",
            names * 2,
        )
        return _KINDS.get(str(found[0]["table_type"]).upper(), "table") if found else None

    def _explained(self, exc: Exception) -> TributaryError | None:
        import snowflake.connector.errors as errors  # pyright: ignore[reportMissingImports]

        if isinstance(exc, errors.ProgrammingError):
            return ConfigError(f"{self._place} refused a statement ({first_line(exc)}).")
        if isinstance(exc, errors.Error):
            return UpstreamUnavailable(f"{self._place} stopped answering ({first_line(exc)}). Run again.")
        return None


def _connect(target: str, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401  (the connector's own class)
    """Connect to a target's account, in UTC and without autocommit."""
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


def _as_written(name: str) -> str:
    return name.lower() if name.isupper() or re.fullmatch(r"[A-Z0-9_$]+", name) else name


def _type(row: Mapping[str, Any]) -> str:
    kind = str(row["data_type"]).lower()
    if row["numeric_precision"] is None or kind not in ("number", "decimal", "numeric"):
        return kind
    return f"{kind}({row['numeric_precision']},{row['numeric_scale']})"


def _bound(sql: str, values: Sequence[object]) -> tuple[str, tuple[object, ...] | None]:
    text, bound = with_percent_places(sql, values, has_escapes=True)
    return text, tuple(bound) or None
