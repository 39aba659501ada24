"""Raw tables in a DuckDB file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from infrastructure.private_files import private_folder, shut

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def open_duckdb(target: str, settings: Mapping[str, Any], schema: str) -> Iterator[DuckDBWarehouse]:
    """Open a target's DuckDB file, which is made when it is missing, and close it at the end.

    Raises:
        ConfigError: duckdb is not installed, or the path is not one of a writable DuckDB file.
        UpstreamUnavailable: another process holds the file.
    """
    path = database_path(target, settings)
    connection = connect_file(path)
    try:
        yield DuckDBWarehouse(connection, path, schema)
    finally:
        connection.close()


def database_path(target: str, settings: Mapping[str, Any]) -> Path:
    """Return the file of a DuckDB target; a relative path starts at the repository root.

    Raises:
        ConfigError: the target has no file of its own.
    """
    path = str(settings.get("path") or ":memory:")
    # md:, s3:// and their like; what follows may hold a token. A single letter is a Windows drive.
    if elsewhere := re.match(r":memory:|[A-Za-z0-9+]{2,}:", path):
        raise ConfigError(
            f"Target {target} keeps its data in {elsewhere[0]}, and raw data can be loaded into a DuckDB "
            "file only: give the target a path such as data/dev.duckdb in infrastructure/targets.yml."
        )
    return ROOT / Path(path).expanduser()


def connect_file(path: Path) -> DuckDBPyConnection:
    """Open a DuckDB file for writing.

    Raises:
        ConfigError: duckdb is not installed, or the path cannot be written or is something else.
        UpstreamUnavailable: another process holds the file.
    """
    try:
        import duckdb
    except ImportError as exc:
        raise ConfigError("The DuckDB client is not installed. Install it: uv sync") from exc
    try:
        private_folder(path.parent)
    except OSError as exc:
        raise ConfigError(
            f"The folder of the DuckDB file {path} cannot be made ({exc.strerror}): "
            "give the target another path in infrastructure/targets.yml."
        ) from exc
    is_new = not path.exists()
    try:
        connection = duckdb.connect(str(path))
    except duckdb.Error as exc:
        raise opening_error(path, exc) from exc
    if is_new:
        shut(path)
    return connection


def opening_error(path: Path, exc: Exception) -> TributaryError:
    """Say in one sentence why a DuckDB file could not be opened, and what to do."""
    text = first_line(exc)
    if "Conflicting lock" in text or "Could not set lock" in text:
        holder = re.search(r"held in (.+?) \(PID (\d+)\)", text)
        who = f"{Path(holder[1]).name}, process {holder[2]}," if holder else "another process"
        return UpstreamUnavailable(
            f"The DuckDB file {path} is in use: {who} holds it, and only one process can write to it. "
            "Wait until it is done, or close it, and run again."
        )
    if "different configuration" in text:
        return UpstreamUnavailable(
            f"The DuckDB file {path} is open in this process with other settings, probably read-only. "
            "Close that connection and run again."
        )
    if "not a valid DuckDB database file" in text:
        return ConfigError(
            f"{path} is there but is not a DuckDB file. Move it away, or give the target another path in "
            "infrastructure/targets.yml."
        )
    if "Permission denied" in text or "Read-only file system" in text:
        return ConfigError(
            f"The DuckDB file {path} cannot be written ({text.rsplit(': ', 1)[-1]}). Give yourself the right "
            f"to: chmod u+w {path.parent} {path}, or give the target another path in "
            "infrastructure/targets.yml."
        )
    return ConfigError(
        f"The DuckDB file {path} cannot be opened ({text}). Give the target the path of a file that can be "
        "written in infrastructure/targets.yml."
    )


@contextmanager
def readable_errors(where: str) -> Iterator[None]:
    """Turn what DuckDB raises while it works into the errors of this project."""
    import duckdb

    try:
        yield
    except duckdb.TransactionException as exc:
        raise UpstreamUnavailable(
            f"{where} was changed by another connection meanwhile ({first_line(exc)}). Nothing was written; run again."
        ) from exc
    except (duckdb.IOException, duckdb.OutOfMemoryException) as exc:
        raise UpstreamUnavailable(
            f"{where} could not be written ({first_line(exc)}). Nothing was changed; "
            "free disk space or memory and run again."
        ) from exc
    except duckdb.Error as exc:
        raise ConfigError(f"{where} refused the load ({first_line(exc)}). Nothing was changed.") from exc


class DuckDBWarehouse:
    """Keep the raw tables of one schema in a DuckDB file (see RawWarehouse)."""

    def __init__(self, connection: DuckDBPyConnection, path: Path, schema: str) -> None:
        self._connection = connection
        self._path = path
        self._schema = schema

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all that is done inside, or nothing of it."""
        with readable_errors(f"The DuckDB file {self._path}"):
            self._connection.begin()
            try:
                yield
                self._connection.commit()
            except BaseException:
                self._rollback()
                raise

    def _rollback(self) -> None:
        import duckdb

        try:
            self._connection.rollback()
        except duckdb.Error:
            # A failed commit has ended the transaction already; its own error says more than this one.
            return

    def prepare(self, tables: Sequence[RawTable]) -> None:
        """Create the schema and the tables that are missing."""
        self._connection.execute(f"create schema if not exists {quoted(self._schema)}")
        for table in tables:
            found = self._connection.execute(
                "select column_name from information_schema.columns "
                "where table_catalog = current_database() and table_schema = ? and table_name = ?",
                [self._schema, table.name],
            ).fetchall()
            if found:
                check_columns(self._schema, table, [name for (name,) in found])
            else:
                self._connection.execute(create_table(self._schema, table))

    def append(self, table: RawTable, rows: Iterable[Sequence[object]]) -> int:
        """Add rows in batches, and return how many."""
        # A batch goes in as one list per column. Measured with duckdb 2.0 (2026-11): 100,000 commits in
        # 1.0 s this way, and 55 s with executemany; CSV files failed on quoted line breaks.
        columns = ", ".join(f"unnest(${n}::{kind}[])" for n, (_, kind) in enumerate(table.columns, start=1))
        statement = f"insert into {self._name(table)} ({column_list(table.column_names)}) select {columns}"
        added = 0
        for batch in batches(rows):
            self._connection.execute(statement, [list(values) for values in zip(*batch, strict=True)])
            added += len(batch)
        return added

    def delete(self, table: RawTable, where: Where) -> int:
        """Delete the rows that fit, and return how many."""
        condition, values = _condition(where)
        return self._number(f"delete from {self._name(table)} where {condition}", values)

    def select(self, table: RawTable, columns: Sequence[str], where: Where) -> Iterator[tuple[Any, ...]]:
        """Stream columns of the rows that fit."""
        condition, values = _condition(where)
        statement = f"select {column_list(columns)} from {self._name(table)} where {condition}"
        result = self._connection.execute(statement, values)
        while rows := result.fetchmany(BATCH_ROWS):
            yield from rows

    def count(self, table: RawTable, where: Where) -> int:
        """Count the rows that fit."""
        condition, values = _condition(where)
        return self._number(f"select count(*) from {self._name(table)} where {condition}", values)

    def generator(self) -> DuckDBPyConnection:
        """Return the connection of the file itself: generated rows never leave DuckDB."""
        return self._connection

    def replace(self, table: RawTable, query: str) -> int:
        """Replace all rows by those of a query, and return how many there are."""
        # A new table instead of delete and insert: the old blocks are free at once, and the file stays small.
        self._connection.execute(create_table(self._schema, table, "create or replace table"))
        columns = column_list(table.column_names)
        return self._number(f"insert into {self._name(table)} ({columns}) select {columns} from ({query})", [])

    def note(self, table: RawTable) -> str | None:
        """Read the comment on a table; None when there is none."""
        row = self._connection.execute(
            "select comment from duckdb_tables() "
            "where database_name = current_database() and schema_name = ? and table_name = ?",
            [self._schema, table.name],
        ).fetchone()
        return row[0] if row else None

    def annotate(self, table: RawTable, note: str) -> None:
        """Put a comment on a table."""
        self._connection.execute(f"comment on table {self._name(table)} is '{note.replace(chr(39), chr(39) * 2)}'")

    def _name(self, table: RawTable) -> str:
        return quoted(self._schema, table.name)

    def _number(self, statement: str, values: Sequence[object]) -> int:
        row = self._connection.execute(statement, list(values)).fetchone()
        return int(row[0]) if row else 0


def _condition(where: Where) -> tuple[str, list[object]]:
    parts = [
        f"{quoted(name)} in (select unnest(?))" if isinstance(value, list) else f"{quoted(name)} = ?"
        for name, value in where.items()
    ]
    return " and ".join(parts) or "true", list(where.values())
