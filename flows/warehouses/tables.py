"""Ask about, change and copy the tables of a target, on every warehouse in the same words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from infrastructure.errors import ConfigError

if TYPE_CHECKING:
    from infrastructure.profiles import Profile


class Tables(Protocol):
    """The tables of one target, over one connection.

    `?` is the place of a value in the SQL of `rows` and `execute`. A relation is what dbt writes in its SQL, quoted as
    the warehouse wants it, such as a node's `relation`. Times are naive and mean UTC, in what is given as in what is
    read.
    """

    warehouse: str
    # Whether `copy` and `drop` inside a transaction are part of it. Otherwise they are done at once, and what was
    # changed before them in the transaction is kept.
    has_transactional_ddl: bool

    def rows(self, query: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query, with names in lower case and exact numbers as Decimal."""
        ...

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run a statement, and return how many rows it changed."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Keep all that is done inside or, after an error or a crash, nothing of it; one inside another is part of it.

        Raises:
            ConfigError: the warehouse refused a statement.
            UpstreamUnavailable: the warehouse went away.
        """
        ...

    def exists(self, relation: str) -> bool:
        """Say whether there is such a table or view."""
        ...

    def is_view(self, relation: str) -> bool:
        """Say whether it is a view; False for what is not there."""
        ...

    def columns(self, relation: str) -> dict[str, str]:
        """Return the type of each column, in their order; none for what is not there."""
        ...

    def copy(self, relation: str, to: str) -> None:
        """Copy a table, without copying its data where the warehouse can; it replaces `to` whole, if that is there.

        Who reads `to` meanwhile sees the old rows or the new ones, never none.
        """
        ...

    def drop(self, relation: str) -> None:
        """Drop a table or view, if it is there."""
        ...

    def view_statement(self, relation: str) -> str | None:
        """Return a statement for `put_view` that makes a view as it is now; None for what is no view."""
        ...

    def put_view(self, relation: str, statement: str) -> None:
        """Make a view, or make it anew."""
        ...

    def make_schema(self, schema: str) -> None:
        """Make a schema in the target's database, if it is not there."""
        ...

    def placed(self, schema: str, name: str) -> str:
        """Return the relation of a name in a schema of the target's database."""
        ...

    def column(self, name: str) -> str:
        """Return a column's name as SQL has to have it."""
        ...

    def type_of(self, kind: str) -> str:
        """Return the warehouse's word for one of text, integer, timestamp and boolean."""
        ...


@contextmanager
def open_tables(profile: Profile) -> Iterator[Tables]:
    """Connect to the warehouse of a target, and close the connection at the end.

    A DuckDB file belongs to one process at a time: close it before dbt runs.

    Raises:
        ConfigError: the warehouse is not one of these four, its client is not installed, or the profile is wrong.
        UpstreamUnavailable: the server does not answer, or another process holds the DuckDB file.
    """
    if profile.warehouse == "duckdb":
        from flows.warehouses.tables_duckdb import open_duckdb as open_warehouse
    elif profile.warehouse == "postgres":
        from flows.warehouses.tables_postgres import open_postgres as open_warehouse
    elif profile.warehouse == "snowflake":
        from flows.warehouses.tables_snowflake import open_snowflake as open_warehouse
    elif profile.warehouse == "bigquery":
        from flows.warehouses.tables_bigquery import open_bigquery as open_warehouse
    else:
        raise ConfigError(
            f"Target {profile.target} is on {profile.warehouse}. Operations that read and change tables know DuckDB, "
            "PostgreSQL, Snowflake and BigQuery."
        )
    with open_warehouse(profile.target, profile.connection()) as tables:
        yield tables


_PART = re.compile(r'"((?:[^"]|"")*)"|`([^`]*)`|([^."`]+)')


def parts_of(relation: str) -> list[tuple[str, bool]]:
    """Take a relation apart into its names, and whether each was quoted.

    Raises:
        ConfigError: it is no name of a table with one to three parts.
    """
    found = [
        (quoted.replace('""', '"') or ticked or plain, not plain) for quoted, ticked, plain in _PART.findall(relation)
    ]
    # BigQuery also takes all parts in one pair of ticks.
    if len(found) == 1 and relation.startswith("`"):
        found = [(part, True) for part in found[0][0].split(".")]
    if not 1 <= len(found) <= 3:
        raise ConfigError(f"{relation!r} is no name of a table, such as dbt writes it: database.schema.name.")
    return found


# Quoted names and comments, in which a question mark stands for itself as it does in texts; and question marks.
_ELSEWHERE = r"\"(?:[^\"]|\"\")*\"|`[^`]*`|--[^\n]*|/\*[\s\S]*?\*/|(\?)"
_PLACES = r"'(?:[^']|'')*'|" + _ELSEWHERE
_PLACES_WITH_ESCAPES = r"'(?:[^'\\]|\\[\s\S]|'')*'|" + _ELSEWHERE


def with_places(sql: str, places: Sequence[str], has_escapes: bool = False) -> str:
    """Put a client's own places of values where the question marks are; none in texts, names and comments.

    Args:
        has_escapes: whether a backslash inside a text takes the meaning from what follows.

    Raises:
        ConfigError: there are more or fewer question marks than places.
    """
    left = list(places)

    def put(match: re.Match[str]) -> str:
        if not match[1]:
            return match[0]
        return left.pop(0) if left else "?!"

    text = re.sub(_PLACES_WITH_ESCAPES if has_escapes else _PLACES, put, sql)
    if left or "?!" in text:
        raise ConfigError(f"{len(places)} values were given for the question marks of: {sql}")
    return text


def plain(value: object) -> Any:  # noqa: ANN401  (whatever a column holds)
    """Return a value that was read with its time in naive UTC."""
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
