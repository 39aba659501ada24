"""The warehouse of a target over one connection: ask, change, copy, measure and load, in the same words on all four."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from flows.warehouses.measures import Measured, has_decimals
from flows.warehouses.raw_tables import RawTable, Where, batches, check_columns
from flows.warehouses.relations import quoted
from infrastructure.errors import TributaryError, UpstreamUnavailable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Returns why this run may not write to a target any more, as a clause; None while it may.
WhyLost = Callable[[], str | None]
# Who holds a target is known above this room, and said here.
_rights: ContextVar[Mapping[str, WhyLost]] = ContextVar("tributary_rights_to_write")


@contextmanager
def asking_before_writes(target: str, why_lost: WhyLost) -> Iterator[None]:
    """Refuse what is written to a target's warehouse in the block, once the right to write to it is lost."""
    token = _rights.set({**_rights.get({}), target: why_lost})
    try:
        yield
    finally:
        _rights.reset(token)


class Warehouse(ABC):
    """One target's database or project.

    `?` is the place of a value in the SQL of `rows` and `execute`. A relation is what dbt writes in its SQL, quoted as
    the warehouse wants it, such as a node's `relation`. Times are naive and mean UTC, in what is given as in what is
    read.

    Each statement is a transaction by itself, unless it is in one. Before it writes and again before it commits, a run
    that holds the target is asked whether it still may: what a run does that has lost its right is undone.

    Every method that asks or changes the warehouse raises ConfigError when it refuses, and UpstreamUnavailable when it
    went away, another session holds a table, or the right to write is lost.

    Attributes:
        has_transactional_ddl: whether `copy` and `drop` inside a transaction are part of it. Otherwise they are done at
            once, and what was changed before them in the transaction is kept.
        schema_name: the pattern of a name that raw tables can be loaded under.
    """

    kind: ClassVar[str]
    has_transactional_ddl: ClassVar[bool]
    schema_name: ClassVar[str] = r"[\s\S]+"
    batch_rows: ClassVar[int] = 10_000
    _types: ClassVar[Mapping[str, str]]
    # Types of raw tables that this warehouse has another word for.
    _raw_types: ClassVar[Mapping[str, str]] = {}
    # How a column is compared with a list of values that is one value.
    _one_of: ClassVar[str]

    def __init__(self, target: str, place: str, database: str, raw_schema: str) -> None:
        """Take what every warehouse has.

        Args:
            place: what an error calls it.
            database: as it is written in SQL, without quotes.
        """
        # The client's own, with commit and rollback; BigQuery's transactions are statements in place of them.
        self._connection: Any = None
        self._target = target
        self._place = place
        self._database = database
        self._raw_schema = raw_schema
        self._why_lost = _rights.get({}).get(target)
        self._is_inside = False
        self._has_written = False
        self._generator: DuckDBPyConnection | None = None

    @classmethod
    @abstractmethod
    def connected(
        cls, target: str, settings: Mapping[str, Any], raw_schema: str, read_only: bool
    ) -> AbstractContextManager[Warehouse]:
        """Connect with the settings of a dbt output, and close the connection at the end; see `open_warehouse`."""

    # Ask and change.

    def rows(self, query: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query, with names in lower case and exact numbers as Decimal."""
        with self._statement(writes=False):
            names, found = self._query(query, values)
            return [dict(zip(names, map(_plain, row), strict=True)) for row in found]

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run a statement, and return how many rows it changed."""
        with self._statement():
            return self._run(statement, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all that is done inside or, after an error or a crash, nothing of it.

        One inside another is part of it.
        """
        if self._is_inside:
            yield
            return
        with self._errors():
            self._begin()
        self._is_inside, self._has_written = True, False
        try:
            yield
            if self._has_written:
                self._require_right()
            with self._errors():
                self._commit()
        except BaseException:
            # Where the connection is gone, so is the transaction, and a commit that failed has ended it.
            with suppress(Exception):
                self._rollback()
            raise
        finally:
            self._is_inside = False

    def exists(self, relation: str) -> bool:
        """Say whether there is such a table or view."""
        return self._kind_of(relation) is not None

    def is_view(self, relation: str) -> bool:
        """Say whether it is a view; False for what is not there."""
        return "view" in (self._kind_of(relation) or "")

    @abstractmethod
    def columns(self, relation: str) -> dict[str, str]:
        """Return the type of each column, in their order; none for what is not there."""

    @abstractmethod
    def copy(self, relation: str, to: str) -> None:
        """Copy a table, without copying its data where the warehouse can; it replaces `to` whole, if that is there.

        Who reads `to` meanwhile sees the old rows or the new ones, never none.
        """

    def drop(self, relation: str) -> None:
        """Drop a table or view, if it is there."""
        kind = self._kind_of(relation)
        if kind:
            self.execute(f"drop {kind} {relation}")

    @abstractmethod
    def view_statement(self, relation: str) -> str | None:
        """Return a statement for `put_view` that makes a view as it is now; None for what is no view."""

    def put_view(self, relation: str, statement: str) -> None:
        """Create or replace a view."""
        self.execute(statement)

    @abstractmethod
    def make_schema(self, schema: str) -> None:
        """Make a schema in the target's database, if it is not there."""

    def placed(self, schema: str, name: str) -> str:
        """Return the relation of a name in a schema of the target's database."""
        return quoted(self._database, schema, name)

    def column(self, name: str) -> str:
        """Return a column's name as SQL has to have it."""
        return quoted(name)

    def type_of(self, kind: str) -> str:
        """Return the warehouse's word for one of text, integer, timestamp and boolean."""
        return self._types[kind]

    # Measure.

    def measure(self, relation: str) -> Measured:
        """Return the figures of a table."""
        columns = self.columns(relation)
        exact = [name for name, kind in columns.items() if has_decimals(kind)]
        sums = "".join(f", sum({self.column(name)}) as sum_{place}" for place, name in enumerate(exact))
        (row,) = self.rows(f"select count(*) as counted{sums} from {relation}")
        found = {name: Decimal(str(row[f"sum_{place}"] or 0)) for place, name in enumerate(exact)}
        return Measured(int(row["counted"]), columns, found)

    def missing_keys(self, key: Sequence[str], of: str, in_: str) -> int:
        """Return how many keys of one table are not in another."""
        names = [self.column(name) for name in key]
        same = " and ".join(f"n.{name} = o.{name}" for name in names)
        (row,) = self.rows(
            f"select count(*) as counted from {of} as o where not exists (select 1 from {in_} as n where {same})"
        )
        return int(row["counted"])

    # Load: what follows is about the tables of the raw schema, and belongs inside `loading`.

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Keep all that is loaded inside or, after an error or a crash, nothing of it."""
        try:
            with self.transaction():
                yield
        finally:
            self._close_generator()

    def prepare(self, tables: Sequence[RawTable]) -> None:
        """Create the schema and the tables that are missing.

        Raises:
            ConfigError: a table of that name has other columns.
        """
        self.make_schema(self._raw_schema)
        for table in tables:
            if found := self.columns(self._raw(table)):
                check_columns(self._raw_schema, table, found)
            else:
                self._create(table)

    def append(self, table: RawTable, rows: Iterable[Sequence[object]]) -> int:
        """Add rows in batches, and return how many; the rows are never all in memory."""
        added = 0
        for batch in batches(rows, self.batch_rows):
            with self._statement():
                self._insert(table, batch)
            added += len(batch)
        return added

    def delete(self, table: RawTable, where: Where) -> int:
        """Delete the rows that fit, and return how many."""
        condition, values = self._condition(where)
        return self.execute(f"delete from {self._raw(table)} where {condition}", values)

    def select(self, table: RawTable, columns: Sequence[str], where: Where) -> Iterator[tuple[Any, ...]]:
        """Stream columns of the rows that fit; read it to its end before the next call."""
        condition, values = self._condition(where)
        with self._errors():
            for row in self._stream(f"select {self._list(columns)} from {self._raw(table)} where {condition}", values):
                yield tuple(map(_plain, row))

    def count(self, table: RawTable, where: Where) -> int:
        """Count the rows that fit."""
        condition, values = self._condition(where)
        (row,) = self.rows(f"select count(*) as counted from {self._raw(table)} where {condition}", values)
        return int(row["counted"])

    def generator(self) -> DuckDBPyConnection:
        """Return the DuckDB connection that `replace` takes its queries to; it lives as long as the load."""
        if self._generator is None:
            import duckdb

            self._generator = duckdb.connect(":memory:")
        return self._generator

    def _close_generator(self) -> None:
        if self._generator is not None:
            self._generator.close()
            self._generator = None

    def replace(self, table: RawTable, query: str) -> int:
        """Replace all rows by those of a query on `generator`, and return how many there are."""
        self.delete(table, {})
        result = self.generator().execute(f"select {', '.join(map(quoted, table.column_names))} from ({query})")
        return self.append(table, fetched(result, self.batch_rows))

    @abstractmethod
    def note(self, table: RawTable) -> str | None:
        """Read the comment on a table; None when there is none."""

    def annotate(self, table: RawTable, note: str) -> None:
        """Put a comment on a table."""
        self.execute(f"comment on table {self._raw(table)} is '{note.replace(chr(39), chr(39) * 2)}'")

    def _raw(self, table: RawTable) -> str:
        return self.placed(self._raw_schema, table.name)

    def _list(self, names: Iterable[str]) -> str:
        return ", ".join(map(self.column, names))

    def _raw_type(self, kind: str) -> str:
        return self._raw_types.get(kind, kind)

    def _create(self, table: RawTable, verb: str = "create table") -> None:
        columns = ", ".join(f"{self.column(name)} {self._raw_type(kind)}" for name, kind in table.columns)
        self.execute(f"{verb} {self._raw(table)} ({columns})")

    def _condition(self, where: Where) -> tuple[str, list[object]]:
        parts = [
            f"{self.column(name)} {self._one_of if isinstance(value, list) else '= ?'}" for name, value in where.items()
        ]
        return " and ".join(parts) or "true", list(where.values())

    # What each warehouse does in its own way.

    @abstractmethod
    def _query(self, query: str, values: Sequence[object]) -> tuple[list[str], Iterable[Sequence[Any]]]:
        """Return the names of a query's columns in lower case, and its rows as they come."""

    def _stream(self, query: str, values: Sequence[object]) -> Iterable[Sequence[Any]]:
        """Return a query's rows as they come, never all in memory."""
        return self._query(query, values)[1]

    @abstractmethod
    def _run(self, statement: str, values: Sequence[object]) -> int:
        """Run a statement, and return how many rows it changed."""

    @abstractmethod
    def _insert(self, table: RawTable, batch: Sequence[Sequence[object]]) -> None:
        """Add one batch of rows to a raw table."""

    @abstractmethod
    def _kind_of(self, relation: str) -> str | None:
        """Return the word that `drop` needs, such as `table`; None for what is not there."""

    @abstractmethod
    def _explained(self, exc: Exception) -> TributaryError | None:
        """Return one of this project's errors in place of one of the client's; None for any other."""

    def _begin(self) -> None:  # noqa: B027  (two have nothing to do)
        """Begin a transaction, where the session does not do so by itself."""

    def _commit(self) -> None:
        self._connection.commit()

    def _rollback(self) -> None:
        self._connection.rollback()

    @contextmanager
    def _statement(self, writes: bool = True) -> Iterator[None]:
        with self.transaction(), self._errors():
            if writes:
                self._require_right()
                self._has_written = True
            yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except TributaryError:
            raise
        except Exception as exc:
            error = self._explained(exc)
            if error is None:
                raise
            raise error from exc

    @property
    def _undone(self) -> str:
        """What an error says of the changes before it, when they are undone with it."""
        return " Nothing was changed." if self._is_inside and self._has_written and self.has_transactional_ddl else ""

    def _require_right(self) -> None:
        why = self._why_lost and self._why_lost()
        if why:
            raise UpstreamUnavailable(
                f"Writing to target {self._target} was stopped because {why}.{self._undone} Run it again."
            )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, for a message."""
    return str(error).strip().split("\n", 1)[0]


def fetched(result: Any, size: int) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401  (a cursor of any client)
    """Return a cursor's rows as they come, some at a time."""
    while batch := result.fetchmany(size):
        yield from batch


def _plain(value: object) -> Any:  # noqa: ANN401  (whatever a column holds)
    """Return a value that was read with its time in naive UTC."""
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
