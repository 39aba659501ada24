"""The tables of a PostgreSQL database (see Tables)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flows.warehouses.raw_postgres import LOCK_TIMEOUT_SECONDS, connected
from flows.warehouses.raw_tables import column_list, first_line, quoted
from flows.warehouses.tables import parts_of, plain, with_places
from infrastructure.errors import ConfigError, UpstreamUnavailable

_TYPES = {"text": "text", "integer": "bigint", "timestamp": "timestamp", "boolean": "boolean"}
_KINDS = {"r": "table", "p": "table", "f": "foreign table", "v": "view", "m": "materialized view"}


@contextmanager
def open_postgres(target: str, settings: Mapping[str, Any]) -> Iterator[PostgresTables]:
    """Connect to a target's PostgreSQL database, and close the connection at the end.

    Raises: as `flows.warehouses.raw_postgres.open_postgres`.
    """
    with connected(target, settings) as (connection, place):
        connection.autocommit = True
        yield PostgresTables(connection, place)


class PostgresTables:
    """See Tables."""

    warehouse = "postgres"
    has_transactional_ddl = True

    def __init__(self, connection: Any, place: str) -> None:  # noqa: ANN401  (psycopg2 has no types)
        self._connection = connection
        self._place = place
        self._is_inside = False

    def rows(self, query: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        with self._readable_errors(), self._connection.cursor() as cursor:
            cursor.execute(*_bound(query, values))
            names = [str(column[0]).lower() for column in cursor.description]
            return [dict(zip(names, map(plain, row), strict=True)) for row in cursor.fetchall()]

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        with self._readable_errors(), self._connection.cursor() as cursor:
            cursor.execute(*_bound(statement, values))
            return max(int(cursor.rowcount), 0)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._is_inside:
            yield
            return
        self.execute("begin")
        self._is_inside = True
        try:
            yield
            self.execute("commit")
        except BaseException:
            self._rollback()
            raise
        finally:
            self._is_inside = False

    def exists(self, relation: str) -> bool:
        return self._kind(relation) is not None

    def is_view(self, relation: str) -> bool:
        return self._kind(relation) in ("view", "materialized view")

    def columns(self, relation: str) -> dict[str, str]:
        found = self.rows(
            "select attname, format_type(atttypid, atttypmod) as type from pg_attribute "
            "where attrelid = to_regclass(?) and attnum > 0 and not attisdropped order by attnum",
            [_within(relation)],
        )
        return {row["attname"]: row["type"] for row in found}

    def copy(self, relation: str, to: str) -> None:
        columns = self.columns(relation)
        names = column_list(list(columns))
        with self.transaction():
            if self._kind(to) == "table" and self.columns(to) == columns:
                # Emptied, not dropped: views and privileges stand on it. Not truncated either, which would show
                # readers an empty table, or none until the end.
                self.execute(f"delete from {_within(to)}")
            else:
                self.drop(to)
                self.execute(f"create table {_within(to)} (like {_within(relation)} including all)")
            # A column that the table makes by itself can't be given.
            self.execute(
                f"insert into {_within(to)} ({names}) overriding system value select {names} from {_within(relation)}"
            )

    def drop(self, relation: str) -> None:
        kind = self._kind(relation)
        if kind:
            self.execute(f"drop {kind} {_within(relation)}")

    def view_statement(self, relation: str) -> str | None:
        if self._kind(relation) != "view":
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

    def placed(self, schema: str, name: str) -> str:
        return quoted(str(self.rows("select current_database() as database")[0]["database"]), schema, name)

    def column(self, name: str) -> str:
        return quoted(name)

    def type_of(self, kind: str) -> str:
        return _TYPES[kind]

    def _kind(self, relation: str) -> str | None:
        found = self.rows("select relkind from pg_class where oid = to_regclass(?)", [_within(relation)])
        return _KINDS.get(found[0]["relkind"]) if found else None

    def _rollback(self) -> None:
        import psycopg2

        try:
            with self._connection.cursor() as cursor:
                cursor.execute("rollback")
        except psycopg2.Error:
            # The connection is gone, and with it the transaction; the first error says why.
            self._connection.close()

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        import psycopg2
        from psycopg2 import errors

        try:
            yield
        except (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure) as exc:
            raise UpstreamUnavailable(
                f"{self._place}: another session held a table for {LOCK_TIMEOUT_SECONDS} seconds, or changed it "
                f"meanwhile ({first_line(exc)}). Run again when it is done."
            ) from exc
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as exc:
            raise UpstreamUnavailable(f"{self._place} stopped answering ({first_line(exc)}). Run again.") from exc
        except psycopg2.Error as exc:
            raise ConfigError(f"{self._place} refused a statement ({first_line(exc)}).") from exc


def _within(relation: str) -> str:
    """Return a relation without its database: dbt writes it, and functions of PostgreSQL do not read it."""
    names = [name if is_quoted else name.lower() for name, is_quoted in parts_of(relation)]
    return quoted(*names[-2:])


def _bound(sql: str, values: Sequence[object]) -> tuple[str, list[object] | None]:
    if not values:
        return sql, None
    return with_places(sql.replace("%", "%%"), ["%s"] * len(values)), list(values)
