"""A DuckDB file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flows.warehouses.raw_tables import RawTable
from flows.warehouses.relations import parts_of, quoted
from flows.warehouses.warehouse import Warehouse, fetched, first_line
from infrastructure.errors import ConfigError, TributaryError, UpstreamUnavailable
from infrastructure.private_files import private_folder, shut
from infrastructure.workspace import targets_file, workspace

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class DuckDBWarehouse(Warehouse):
    """See Warehouse. The file is created when it is missing."""

    kind = "duckdb"
    has_transactional_ddl = True
    _types: ClassVar = {"text": "varchar", "integer": "bigint", "timestamp": "timestamp", "boolean": "boolean"}
    _one_of = "in (select unnest(?))"

    def __init__(self, target: str, path: Path, connection: DuckDBPyConnection, raw_schema: str) -> None:
        (database,) = connection.execute("select current_database()").fetchone() or ("",)
        super().__init__(target, f"The DuckDB file {path}", str(database), raw_schema)
        self._connection = connection

    @classmethod
    @contextmanager
    def connected(
        cls, target: str, settings: Mapping[str, Any], raw_schema: str, read_only: bool
    ) -> Iterator[DuckDBWarehouse]:
        path = database_path(target, settings)
        connection = _connect(path, read_only)
        try:
            # A machine's own time zone would shift what is read with one.
            connection.execute("set timezone = 'UTC'")
            yield cls(target, path, connection, raw_schema)
        finally:
            connection.close()

    def columns(self, relation: str) -> dict[str, str]:
        return {name: kind for name, kind, _ in self._columns(relation)}

    def copy(self, relation: str, to: str) -> None:
        if self.is_view(to):
            self.drop(to)
        found = self._columns(relation)
        # Not `create table … as`, which forgets which columns can't be null.
        declared = ", ".join(f"{quoted(name)} {kind}{'' if null else ' not null'}" for name, kind, null in found)
        names = self._list(name for name, _, _ in found)
        with self.transaction():
            self.execute(f"create or replace table {to} ({declared})")
            self.execute(f"insert into {to} ({names}) select {names} from {relation}")

    def view_statement(self, relation: str) -> str | None:
        where, values = _where(relation)
        for name, other in (("catalog", "database_name"), ("schema", "schema_name"), ("name", "view_name")):
            where = where.replace(f"table_{name}", other)
        found = self.rows(f"select sql from duckdb_views() where {where}", values)
        return re.sub(r"(?i)^create view", "create or replace view", str(found[0]["sql"])) if found else None

    def make_schema(self, schema: str) -> None:
        self.execute(f"create schema if not exists {quoted(schema)}")

    def generator(self) -> DuckDBPyConnection:
        """Return the connection of the file itself: generated rows never leave DuckDB."""
        return self._connection

    def replace(self, table: RawTable, query: str) -> int:
        # A new table instead of delete and insert: the old blocks are free at once, and the file stays small.
        self._create(table, "create or replace table")
        columns = self._list(table.column_names)
        return self.execute(f"insert into {self._raw(table)} ({columns}) select {columns} from ({query})")

    def note(self, table: RawTable) -> str | None:
        where, values = _where(self._raw(table))
        for name, other in (("catalog", "database_name"), ("schema", "schema_name")):
            where = where.replace(f"table_{name}", other)
        found = self.rows(f"select comment from duckdb_tables() where {where}", values)
        return found[0]["comment"] if found else None

    def _query(self, query: str, values: Sequence[object]) -> tuple[list[str], Iterable[Sequence[Any]]]:
        result = self._connection.execute(query, list(values))
        return [str(column[0]).lower() for column in result.description or ()], fetched(result, self.batch_rows)

    def _run(self, statement: str, values: Sequence[object]) -> int:
        found = self._connection.execute(statement, list(values)).fetchone()
        return int(found[0]) if found and isinstance(found[0], int) else 0

    def _insert(self, table: RawTable, batch: Sequence[Sequence[object]]) -> None:
        # A batch goes in as one list per column. Measured with duckdb 2.0 (2026-11): 100,000 commits in
        # 1.0 s this way, and 55 s with executemany; CSV files failed on quoted line breaks.
        columns = ", ".join(f"unnest(${n}::{kind}[])" for n, (_, kind) in enumerate(table.columns, start=1))
        statement = f"insert into {self._raw(table)} ({self._list(table.column_names)}) select {columns}"
        self._connection.execute(statement, [list(values) for values in zip(*batch, strict=True)])

    def _kind_of(self, relation: str) -> str | None:
        where, values = _where(relation)
        found = self.rows(f"select table_type from information_schema.tables where {where}", values)
        return ("view" if found[0]["table_type"] == "VIEW" else "table") if found else None

    def _columns(self, relation: str) -> list[tuple[str, str, bool]]:
        where, values = _where(relation)
        found = self.rows(
            "select column_name, data_type, is_nullable = 'YES' as is_nullable from information_schema.columns "
            f"where {where} order by ordinal_position",
            values,
        )
        return [(row["column_name"], row["data_type"], row["is_nullable"]) for row in found]

    def _begin(self) -> None:
        self._connection.begin()

    def _explained(self, exc: Exception) -> TributaryError | None:
        import duckdb

        text = first_line(exc)
        if isinstance(exc, duckdb.TransactionException):
            return UpstreamUnavailable(
                f"{self._place} was changed by another connection meanwhile ({text}).{self._undone} Run again."
            )
        if isinstance(exc, duckdb.IOException | duckdb.OutOfMemoryException):
            return UpstreamUnavailable(
                f"{self._place} could not be read or written ({text}).{self._undone} "
                "Free disk space or memory and run again."
            )
        if isinstance(exc, duckdb.Error):
            return ConfigError(f"{self._place} refused a statement ({text}).{self._undone}")
        return None


def database_path(target: str, settings: Mapping[str, Any]) -> Path:
    """Return the file of a DuckDB target; a relative path starts at the workspace.

    Raises:
        ConfigError: the target has no file of its own.
    """
    path = str(settings.get("path") or ":memory:")
    # md:, s3:// and their like; what follows may hold a token. A single letter is a Windows drive.
    if elsewhere := re.match(r":memory:|[A-Za-z0-9+]{2,}:", path):
        raise ConfigError(
            f"Target {target} keeps its data in {elsewhere[0]}, and raw data can be loaded into a DuckDB "
            f"file only: give the target a path such as data/dev.duckdb in {targets_file()}."
        )
    return workspace().folder / Path(path).expanduser()


def _connect(path: Path, read_only: bool) -> DuckDBPyConnection:
    try:
        import duckdb
    except ImportError as exc:
        raise ConfigError("The DuckDB client is not installed. Install it: uv sync") from exc
    try:
        if not read_only:
            private_folder(path.parent)
    except OSError as exc:
        raise ConfigError(
            f"The folder of the DuckDB file {path} cannot be made ({exc.strerror}): "
            f"give the target another path in {targets_file()}."
        ) from exc
    is_new = not path.exists()
    try:
        connection = duckdb.connect(str(path), read_only=read_only)
    except duckdb.Error as exc:
        raise _opening_error(path, exc) from exc
    if is_new:
        shut(path)
    return connection


def _opening_error(path: Path, exc: Exception) -> TributaryError:
    """Return the error for a DuckDB file that could not be opened, with what to do."""
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
            f"{targets_file()}."
        )
    if "Permission denied" in text or "Read-only file system" in text:
        return ConfigError(
            f"The DuckDB file {path} cannot be written ({text.rsplit(': ', 1)[-1]}). Give this user the right "
            f"to: chmod u+w {path.parent} {path}, or give the target another path in "
            f"{targets_file()}."
        )
    return ConfigError(
        f"The DuckDB file {path} cannot be opened ({text}). Give the target the path of a file that can be "
        f"written in {targets_file()}."
    )


def _where(relation: str) -> tuple[str, list[str]]:
    """Return the condition for a relation in the information schema; DuckDB's names ignore case."""
    names = [name for name, _ in parts_of(relation)]
    columns = ("table_catalog", "table_schema", "table_name")[-len(names) :]
    parts = [f"lower({column}) = lower(?)" for column in columns]
    if len(names) < 3:
        parts.append("table_catalog = current_database()")
    if len(names) < 2:
        parts.append("table_schema = current_schema()")
    return " and ".join(parts), names
