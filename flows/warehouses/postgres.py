"""A PostgreSQL database."""

from __future__ import annotations

import io
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

from flows.warehouses.raw_tables import RawTable
from flows.warehouses.relations import parts_of, quoted, with_percent_places
from flows.warehouses.warehouse import Warehouse, first_line
from infrastructure.commands import program
from infrastructure.errors import ConfigError, TributaryError, UpstreamUnavailable
from infrastructure.workspace import targets_file

_CONNECT_TIMEOUT_SECONDS = 10
LOCK_TIMEOUT_SECONDS = 60

# Names of a dbt output → names of libpq; what is not here (threads, schema) is dbt's own.
_LIBPQ_NAMES = {
    "host": "host",
    "port": "port",
    "user": "user",
    "password": "password",
    "pass": "password",
    "dbname": "dbname",
    "database": "dbname",
    "connect_timeout": "connect_timeout",
    "keepalives_idle": "keepalives_idle",
    "sslmode": "sslmode",
    "sslcert": "sslcert",
    "sslkey": "sslkey",
    "sslrootcert": "sslrootcert",
}
_KINDS = {"r": "table", "p": "table", "f": "foreign table", "v": "view", "m": "materialized view"}


class PostgresWarehouse(Warehouse):
    """See Warehouse."""

    kind = "postgres"
    has_transactional_ddl = True
    _types: ClassVar = {"text": "text", "integer": "bigint", "timestamp": "timestamp", "boolean": "boolean"}
    _one_of = "= any(?)"

    def __init__(self, target: str, place: str, connection: Any, raw_schema: str) -> None:  # noqa: ANN401  (psycopg2)
        super().__init__(target, place, connection.info.dbname, raw_schema)
        self._connection = connection

    @classmethod
    @contextmanager
    def connected(
        cls, target: str, settings: Mapping[str, Any], raw_schema: str, read_only: bool
    ) -> Iterator[PostgresWarehouse]:
        try:
            import psycopg2
        except ImportError as exc:
            raise ConfigError(
                f"Target {target} is on PostgreSQL, and its client is not installed. Install it: "
                "uv sync --extra postgres"
            ) from exc
        given = {_LIBPQ_NAMES[name]: value for name, value in settings.items() if name in _LIBPQ_NAMES and value}
        options: dict[str, Any] = {
            "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
            **given,
            "application_name": "tributary",
        }
        place = f"PostgreSQL database {options.get('dbname')} on {options.get('host')}:{options.get('port', 5432)}"
        try:
            connection = psycopg2.connect(**options)
        except psycopg2.Error as exc:
            raise opening_error(target, place, options, exc) from exc
        try:
            connection.set_client_encoding("UTF8")
            connection.set_session(readonly=read_only or None)
            warehouse = cls(target, place, connection, raw_schema)
            warehouse.rows("select set_config('timezone', 'UTC', false)")
            warehouse.rows("select set_config('lock_timeout', ?, false)", [f"{LOCK_TIMEOUT_SECONDS}s"])
            if role := settings.get("role"):
                warehouse.rows("select set_config('role', ?, false)", [str(role)])
            yield warehouse
        finally:
            connection.close()

    def columns(self, relation: str) -> dict[str, str]:
        found = self.rows(
            "select attname, format_type(atttypid, atttypmod) as type from pg_attribute "
            "where attrelid = to_regclass(?) and attnum > 0 and not attisdropped order by attnum",
            [_within(relation)],
        )
        return {row["attname"]: row["type"] for row in found}

    def copy(self, relation: str, to: str) -> None:
        columns = self.columns(relation)
        names = self._list(columns)
        with self.transaction():
            if self._kind_of(to) == "table" and self.columns(to) == columns:
                # Emptied, not dropped: views and privileges depend on it. Not truncated either, which would show
                # readers an empty table, or none until the end.
                self.execute(f"delete from {_within(to)}")
            else:
                self.drop(to)
                self.execute(f"create table {_within(to)} (like {_within(relation)} including all)")
            # A column that the table makes by itself can't be given.
            self.execute(
                f"insert into {_within(to)} ({names}) overriding system value select {names} from {_within(relation)}"
            )

    def view_statement(self, relation: str) -> str | None:
        if self._kind_of(relation) != "view":
            return None
        found = self.rows("select pg_get_viewdef(to_regclass(?)) as definition", [_within(relation)])
        return f"create view {_within(relation)} as {found[0]['definition']}"

    def put_view(self, relation: str, statement: str) -> None:
        # `create or replace` can't take a column away.
        self.drop(relation)
        self.execute(statement)

    def make_schema(self, schema: str) -> None:
        # Looked up first: `create … if not exists` asks for the privilege even when there is nothing to do.
        if not self.rows("select 1 from pg_namespace where nspname = ?", [schema]):
            self.execute(f"create schema {quoted(schema)}")

    @contextmanager
    def loading(self) -> Iterator[None]:
        with super().loading():
            # Two loads into one schema wait for each other.
            self.rows("select pg_advisory_xact_lock(?)", [zlib.crc32(f"tributary {self._raw_schema}".encode())])
            yield

    def append(self, table: RawTable, rows: Iterable[Sequence[object]]) -> int:
        added = super().append(table, rows)
        if added >= self.batch_rows:
            self._analyze(table)
        return added

    def replace(self, table: RawTable, query: str) -> int:
        # Truncated instead of dropped: dbt's views depend on this table. Other sessions see the old rows until
        # they would read, and then wait for the commit.
        self.execute(f"truncate {self._raw(table)}")
        columns = self._list(table.column_names)
        with tempfile.TemporaryDirectory(prefix="tributary-") as folder:
            rows = Path(folder) / f"{table.name}.csv"
            self._generate(f"select {columns} from ({query})", rows)
            with self._statement(), rows.open("rb") as file, self._connection.cursor() as cursor:
                cursor.copy_expert(
                    f"copy {self._raw(table)} ({columns}) from stdin (format csv, null '\\N')", file, 1 << 20
                )
                written = cursor.rowcount
        self._analyze(table)
        return written

    def note(self, table: RawTable) -> str | None:
        found = self.rows("select obj_description(to_regclass(?), 'pg_class') as note", [_within(self._raw(table))])
        return found[0]["note"]

    def _generate(self, query: str, file: Path) -> None:
        """Write a query's rows into a CSV file, with the generator."""
        import duckdb

        try:
            place = str(file).replace("'", "''")
            self.generator().execute(f"copy ({query}) to '{place}' (format csv, header false, nullstr '\\N')")
        except (duckdb.IOException, duckdb.OutOfMemoryException) as exc:
            raise UpstreamUnavailable(
                f"The temporary file {file} could not be written ({first_line(exc)}).{self._undone} "
                "Free disk space or memory and run again."
            ) from exc

    def _analyze(self, table: RawTable) -> None:
        # Until autovacuum comes by, the planner would take the table for empty, and dbt reads it at once.
        self.execute(f"analyze {self._raw(table)}")

    def _query(self, query: str, values: Sequence[object]) -> tuple[list[str], Iterable[Sequence[Any]]]:
        cursor = self._connection.cursor()
        cursor.execute(*with_percent_places(query, values))
        return [str(column[0]).lower() for column in cursor.description], cursor

    def _stream(self, query: str, values: Sequence[object]) -> Iterator[Sequence[Any]]:
        # A named cursor stays on the server; an unnamed one would hold all rows in memory.
        with self._connection.cursor(name="tributary_select") as cursor:
            cursor.itersize = self.batch_rows
            cursor.execute(*with_percent_places(query, values))
            yield from cursor

    def _run(self, statement: str, values: Sequence[object]) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(*with_percent_places(statement, values))
            return max(int(cursor.rowcount), 0)

    def _insert(self, table: RawTable, batch: Sequence[Sequence[object]]) -> None:
        text = "".join(["\t".join([copy_text(value) for value in row]) + "\n" for row in batch])
        with self._connection.cursor() as cursor:
            cursor.copy_expert(
                f"copy {self._raw(table)} ({self._list(table.column_names)}) from stdin",
                io.BytesIO(text.encode("utf-8", errors="replace")),
            )

    def _kind_of(self, relation: str) -> str | None:
        found = self.rows("select relkind from pg_class where oid = to_regclass(?)", [_within(relation)])
        return _KINDS.get(found[0]["relkind"]) if found else None

    def _explained(self, exc: Exception) -> TributaryError | None:
        import psycopg2
        from psycopg2 import errors

        text = first_line(exc)
        if isinstance(exc, errors.InsufficientPrivilege):
            return ConfigError(
                f"{self._place} does not allow a statement ({text}).{self._undone} "
                "Have the owner grant it; to load raw tables, grant create on the database or make the schema yours."
            )
        if isinstance(exc, errors.UntranslatableCharacter):
            return ConfigError(
                f"{self._place} cannot hold every character ({text}).{self._undone} "
                "Use a database made with: createdb --encoding UTF8 --template template0 NAME"
            )
        if isinstance(exc, errors.LockNotAvailable | errors.DeadlockDetected | errors.SerializationFailure):
            return UpstreamUnavailable(
                f"{self._place}: another session held a table for {LOCK_TIMEOUT_SECONDS} seconds, or changed it "
                f"meanwhile ({text}).{self._undone} Run again when it is done."
            )
        if isinstance(exc, psycopg2.OperationalError | psycopg2.InterfaceError):
            return UpstreamUnavailable(f"{self._place} stopped answering ({text}).{self._undone} Run again.")
        if isinstance(exc, psycopg2.Error):
            return ConfigError(f"{self._place} refused a statement ({text}).{self._undone}")
        return None


def opening_error(target: str, place: str, options: Mapping[str, Any], exc: Exception) -> TributaryError:
    """Say in one sentence why a connection failed, and what to do; libpq's texts hold no password."""
    # One line per address that was tried: localhost may be refused on ::1 and then answer on 127.0.0.1.
    lines = [line.strip() for line in str(exc).splitlines() if line.strip() and "Is the server" not in line]
    text = " ".join(lines)
    reason = (lines or ["no reason given"])[-1].split(" failed: ", 1)[-1].removeprefix("FATAL:").strip()
    user, dbname = options.get("user"), options.get("dbname")
    again = f"mend target {target} in {targets_file()} or its secrets, then: {program()} setup --target {target}"
    if re.search(r"password authentication failed|no password supplied", text):
        return ConfigError(f"{place} did not accept the password of user {user}: {again}")
    if re.search(r'database ".*" does not exist', text):
        return ConfigError(f"{place} does not exist. Make it (createdb {dbname}), or {again}")
    if re.search(r'role ".*" (does not exist|is not permitted)|authentication failed|pg_hba\.conf', text):
        return ConfigError(f"{place} does not let user {user} in ({reason}): {again}")
    if re.search(r"SSL|sslmode|certificate|invalid", text):
        return ConfigError(f"{place} cannot be reached with these settings ({reason}): {again}")
    return UpstreamUnavailable(f"{place} does not answer ({reason}). Start it, or {again}")


def copy_text(value: object) -> str:
    r"""Write a value as COPY's text format wants it: \N for None, escapes, no NUL (PostgreSQL has none)."""
    if value is None:
        return "\\N"
    if isinstance(value, str):
        if "\0" in value:
            value = value.replace("\0", "\ufffd")
        if "\\" in value:
            value = value.replace("\\", "\\\\")
        return value.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def _within(relation: str) -> str:
    """Return a relation without its database: dbt writes it, and functions of PostgreSQL do not read it."""
    names = [name if is_quoted else name.lower() for name, is_quoted in parts_of(relation)]
    return quoted(*names[-2:])
