"""Raw tables in a PostgreSQL database."""

from __future__ import annotations

import io
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.warehouses.raw_tables import (
    BATCH_ROWS,
    RawTable,
    Where,
    batches,
    check_columns,
    column_list,
    create_table,
    first_line,
    quoted,
)
from infrastructure.errors import ConfigError, TributaryError, UpstreamUnavailable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CONNECT_TIMEOUT_SECONDS = 10
LOCK_TIMEOUT_SECONDS = 60

# Names of a dbt output → names of libpq; what is not here (threads, schema) is dbt's own.
LIBPQ_NAMES = {
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


@contextmanager
def open_postgres(target: str, settings: Mapping[str, Any], schema: str) -> Iterator[PostgresWarehouse]:
    """Connect to a target's PostgreSQL database, and close the connection at the end.

    Raises:
        ConfigError: psycopg2 is not installed, or the server knows no such user, password or database.
        UpstreamUnavailable: the server does not answer.
    """
    with connected(target, settings) as (connection, place):
        yield PostgresWarehouse(connection, place, schema)


@contextmanager
def connected(target: str, settings: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """Connect to a target's database in UTC and its role; yields the connection, and what to call it in a message.

    Raises: as `open_postgres`.
    """
    try:
        import psycopg2
    except ImportError as exc:
        raise ConfigError(
            f"Target {target} is on PostgreSQL, and its client is not installed. Install it: uv sync --extra postgres"
        ) from exc
    given = {LIBPQ_NAMES[name]: value for name, value in settings.items() if name in LIBPQ_NAMES and value}
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        **given,
        "application_name": "tributary",
    }
    place = f"PostgreSQL database {options.get('dbname')} on {options.get('host')}:{options.get('port', 5432)}"
    try:
        connection = psycopg2.connect(**options)
    except psycopg2.Error as exc:
        raise opening_error(target, place, options, exc) from exc
    try:
        with readable_errors(place):
            connection.set_client_encoding("UTF8")
            with connection.cursor() as cursor:
                cursor.execute("set timezone to 'UTC'")
                cursor.execute("select set_config('lock_timeout', %s, false)", [f"{LOCK_TIMEOUT_SECONDS}s"])
                if role := settings.get("role"):
                    cursor.execute(f"set role {quoted(str(role))}")
            connection.commit()
        yield connection, place
    finally:
        connection.close()


def opening_error(target: str, place: str, options: Mapping[str, Any], exc: Exception) -> TributaryError:
    """Say in one sentence why a connection failed, and what to do; libpq's texts hold no password."""
    # One line per address that was tried: localhost may be refused on ::1 and then answer on 127.0.0.1.
    lines = [line.strip() for line in str(exc).splitlines() if line.strip() and "Is the server" not in line]
    text = " ".join(lines)
    reason = (lines or ["no reason given"])[-1].split(" failed: ", 1)[-1].removeprefix("FATAL:").strip()
    user, dbname = options.get("user"), options.get("dbname")
    again = (
        f"mend target {target} in infrastructure/targets.yml or its secrets, then: "
        f"uv run python -m infrastructure.setup_profiles --target {target}"
    )
    if re.search(r"password authentication failed|no password supplied", text):
        return ConfigError(f"{place} did not accept the password of user {user}: {again}")
    if re.search(r'database ".*" does not exist', text):
        return ConfigError(f"{place} does not exist. Make it (createdb {dbname}), or {again}")
    if re.search(r'role ".*" (does not exist|is not permitted)|authentication failed|pg_hba\.conf', text):
        return ConfigError(f"{place} does not let user {user} in ({reason}): {again}")
    if re.search(r"SSL|sslmode|certificate|invalid", text):
        return ConfigError(f"{place} cannot be reached with these settings ({reason}): {again}")
    return UpstreamUnavailable(f"{place} does not answer ({reason}). Start it, or {again}")


@contextmanager
def readable_errors(place: str) -> Iterator[None]:
    """Turn what PostgreSQL raises while it works into the errors of this project."""
    import psycopg2
    from psycopg2 import errors

    try:
        yield
    except errors.InsufficientPrivilege as exc:
        raise ConfigError(
            f"{place} does not allow the load ({first_line(exc)}). Nothing was changed; "
            "have its owner grant create on the database, or make the schema yours."
        ) from exc
    except errors.UntranslatableCharacter as exc:
        raise ConfigError(
            f"{place} cannot hold every character ({first_line(exc)}). Nothing was changed; "
            "use a database made with: createdb --encoding UTF8 --template template0 NAME"
        ) from exc
    except errors.LockNotAvailable as exc:
        raise UpstreamUnavailable(
            f"{place}: another session held the raw tables for {LOCK_TIMEOUT_SECONDS} seconds. "
            "Nothing was changed; run again when it is done."
        ) from exc
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as exc:
        raise UpstreamUnavailable(
            f"{place} stopped working on the load ({first_line(exc)}). Nothing was changed; run again."
        ) from exc
    except psycopg2.Error as exc:
        raise ConfigError(f"{place} refused the load ({first_line(exc)}). Nothing was changed.") from exc


class PostgresWarehouse:
    """Keep the raw tables of one schema in a PostgreSQL database (see RawWarehouse)."""

    def __init__(self, connection: Any, place: str, schema: str) -> None:  # noqa: ANN401  (psycopg2 has no types)
        self._connection = connection
        self._place = place
        self._schema = schema
        self._generator: DuckDBPyConnection | None = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all that is done inside, or nothing of it; two loads into one schema wait for each other."""
        import psycopg2

        with readable_errors(self._place):
            try:
                self._execute("select pg_advisory_xact_lock(%s)", [zlib.crc32(f"tributary {self._schema}".encode())])
                yield
                self._connection.commit()
            except BaseException:
                try:
                    self._connection.rollback()
                except psycopg2.Error:
                    # The connection is gone, and with it the transaction; the first error says why.
                    self._connection.close()
                raise
            finally:
                if self._generator is not None:
                    self._generator.close()
                    self._generator = None

    def prepare(self, tables: Sequence[RawTable]) -> None:
        """Create the schema and the tables that are missing."""
        # Looked up first: `create … if not exists` asks for the privilege even when there is nothing to do.
        if not self._rows("select 1 from pg_namespace where nspname = %s", [self._schema]):
            self._execute(f"create schema {quoted(self._schema)}")
        for table in tables:
            found = self._rows(
                "select a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid "
                "join pg_namespace n on n.oid = c.relnamespace "
                "where n.nspname = %s and c.relname = %s and a.attnum > 0 and not a.attisdropped",
                [self._schema, table.name],
            )
            if found:
                check_columns(self._schema, table, [name for (name,) in found])
            else:
                self._execute(create_table(self._schema, table))

    def append(self, table: RawTable, rows: Iterable[Sequence[object]]) -> int:
        """Add rows in batches, and return how many."""
        statement = f"copy {self._name(table)} ({column_list(table.column_names)}) from stdin"
        added = 0
        with self._connection.cursor() as cursor:
            for batch in batches(rows):
                text = "".join(["\t".join([copy_text(value) for value in row]) + "\n" for row in batch])
                cursor.copy_expert(statement, io.BytesIO(text.encode("utf-8", errors="replace")))
                added += len(batch)
        if added >= BATCH_ROWS:
            self._analyze(table)
        return added

    def delete(self, table: RawTable, where: Where) -> int:
        """Delete the rows that fit, and return how many."""
        condition, values = _condition(where)
        return self._execute(f"delete from {self._name(table)} where {condition}", values)

    def select(self, table: RawTable, columns: Sequence[str], where: Where) -> Iterator[tuple[Any, ...]]:
        """Stream columns of the rows that fit."""
        condition, values = _condition(where)
        # A named cursor stays on the server; an unnamed one would hold all rows in memory.
        with self._connection.cursor(name="tributary_select") as cursor:
            cursor.itersize = BATCH_ROWS
            cursor.execute(f"select {column_list(columns)} from {self._name(table)} where {condition}", values)
            yield from cursor

    def count(self, table: RawTable, where: Where) -> int:
        """Count the rows that fit."""
        condition, values = _condition(where)
        return self._rows(f"select count(*) from {self._name(table)} where {condition}", values)[0][0]

    def generator(self) -> DuckDBPyConnection:
        """Return a DuckDB connection in memory, which lives until the transaction ends."""
        if self._generator is None:
            import duckdb

            self._generator = duckdb.connect(":memory:")
        return self._generator

    def replace(self, table: RawTable, query: str) -> int:
        """Replace all rows by those of a query on the generator, and return how many there are."""
        from flows.warehouses.raw_duckdb import readable_errors as readable_generator_errors

        # Truncated instead of dropped: dbt's views stand on this table. Other sessions see the old rows until
        # they would read, and then wait for the commit.
        self._execute(f"truncate {self._name(table)}")
        columns = column_list(table.column_names)
        with tempfile.TemporaryDirectory(prefix="tributary-") as folder:
            rows = Path(folder) / f"{table.name}.csv"
            with readable_generator_errors(f"The temporary file {rows}"):
                self.generator().execute(
                    f"copy (select {columns} from ({query})) to '{str(rows).replace(chr(39), chr(39) * 2)}' "
                    "(format csv, header false, nullstr '\\N')"
                )
            with rows.open("rb") as file, self._connection.cursor() as cursor:
                cursor.copy_expert(
                    f"copy {self._name(table)} ({columns}) from stdin (format csv, null '\\N')", file, 1 << 20
                )
                written = cursor.rowcount
        self._analyze(table)
        return written

    def note(self, table: RawTable) -> str | None:
        """Read the comment on a table; None when there is none."""
        return self._rows("select obj_description(%s::regclass, 'pg_class')", [self._name(table)])[0][0]

    def annotate(self, table: RawTable, note: str) -> None:
        """Put a comment on a table."""
        self._execute(f"comment on table {self._name(table)} is %s", [note])

    def _name(self, table: RawTable) -> str:
        return quoted(self._schema, table.name)

    def _analyze(self, table: RawTable) -> None:
        # Until autovacuum comes by, the planner would take the table for empty, and dbt reads it at once.
        self._execute(f"analyze {self._name(table)}")

    def _execute(self, statement: str, values: Sequence[object] = ()) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, list(values))
            return cursor.rowcount

    def _rows(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, list(values))
            return cursor.fetchall()


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


def _condition(where: Where) -> tuple[str, list[object]]:
    parts = [
        f"{quoted(name)} = any(%s)" if isinstance(value, list) else f"{quoted(name)} = %s"
        for name, value in where.items()
    ]
    return " and ".join(parts) or "true", list(where.values())
