"""The tables of a BigQuery project (see Tables)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from flows.warehouses.raw_bigquery import connected
from flows.warehouses.raw_tables import first_line
from flows.warehouses.tables import parts_of, plain, with_places
from infrastructure.connection_check.check import explain
from infrastructure.errors import ConfigError, UpstreamUnavailable

_TYPES = {"text": "string", "integer": "int64", "timestamp": "timestamp", "boolean": "bool"}
# The client's names for what SQL calls otherwise.
_IN_SQL = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}


@contextmanager
def open_bigquery(target: str, settings: Mapping[str, Any]) -> Iterator[BigQueryTables]:
    """Connect to a target's BigQuery project, and close the connection at the end.

    Raises: as `flows.warehouses.raw_bigquery.open_bigquery`.
    """
    with connected(target, settings) as (client, project):
        yield BigQueryTables(client, target, project, settings.get("location"))


class BigQueryTables:
    """See Tables. A clone shares the storage of what it was made from, and is made at once."""

    warehouse = "bigquery"
    has_transactional_ddl = False

    def __init__(self, client: Any, target: str, project: str, location: str | None) -> None:  # noqa: ANN401
        self._client = client
        self._target = target
        self._project = project
        self._location = location
        self._session: str | None = None
        self._is_inside = False

    def rows(self, query: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        with self._readable_errors():
            result = self._run(query, values).result()
            return [{name.lower(): plain(value) for name, value in row.items()} for row in result]

    def execute(self, statement: str, values: Sequence[object] = ()) -> int:
        with self._readable_errors():
            job = self._run(statement, values)
            job.result()
            return int(job.num_dml_affected_rows or 0)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._is_inside:
            yield
            return
        # Statements of one session share a transaction.
        with self._readable_errors():
            job = self._run("begin transaction", (), create_session=True)
            job.result()
        self._session = job.session_info.session_id
        self._is_inside = True
        try:
            yield
            self.execute("commit transaction")
        except BaseException:
            self._rollback()
            raise
        finally:
            self._session, self._is_inside = None, False

    def exists(self, relation: str) -> bool:
        return self._table(relation) is not None

    def is_view(self, relation: str) -> bool:
        table = self._table(relation)
        return table is not None and "VIEW" in table.table_type

    def columns(self, relation: str) -> dict[str, str]:
        table = self._table(relation)
        return {field.name: _type(field) for field in table.schema} if table is not None else {}

    def copy(self, relation: str, to: str) -> None:
        if self.is_view(to):
            self.drop(to)
        self.execute(f"create or replace table {to} clone {relation}")

    def drop(self, relation: str) -> None:
        table = self._table(relation)
        if table is not None:
            # MATERIALIZED_VIEW is said with a space in SQL.
            kind = table.table_type.lower().replace("_", " ")
            self.execute(f"drop {kind if 'view' in kind else 'table'} if exists {relation}")

    def view_statement(self, relation: str) -> str | None:
        table = self._table(relation)
        query = table.view_query if table is not None else None
        return f"create or replace view {relation} as {query}" if query else None

    def put_view(self, relation: str, statement: str) -> None:
        self.execute(statement)

    def make_schema(self, schema: str) -> None:
        bigquery = _library()

        dataset = bigquery.Dataset(f"{self._project}.{schema}")
        if self._location:
            dataset.location = self._location
        with self._readable_errors():
            self._client.create_dataset(dataset, exists_ok=True)

    def placed(self, schema: str, name: str) -> str:
        return f"`{self._project}`.`{schema}`.`{name}`"

    def column(self, name: str) -> str:
        return f"`{name}`"

    def type_of(self, kind: str) -> str:
        return _TYPES[kind]

    def _id(self, relation: str) -> str:
        names = [name for name, _ in parts_of(relation)]
        if len(names) < 2:
            raise ConfigError(f"{relation} names no dataset, which BigQuery's tables have to be named with.")
        return ".".join(names if len(names) == 3 else [self._project, *names])

    def _table(self, relation: str) -> Any:  # noqa: ANN401  (the client's Table)
        from google.api_core.exceptions import NotFound  # pyright: ignore[reportMissingImports]

        with self._readable_errors():
            try:
                return self._client.get_table(self._id(relation))
            except NotFound:
                return None

    def _run(self, statement: str, values: Sequence[object], create_session: bool = False) -> Any:  # noqa: ANN401
        bigquery = _library()

        # A null has no type that it could be sent as.
        given = [value for value in values if value is not None]
        if len(given) < len(values):
            places = ["null" if value is None else "?" for value in values]
            statement = with_places(statement, places, has_escapes=True)
        config = bigquery.QueryJobConfig(
            query_parameters=[bigquery.ScalarQueryParameter(None, *_typed(value)) for value in given]
        )
        if create_session:
            config.create_session = True
        if self._session:
            config.connection_properties = [bigquery.ConnectionProperty("session_id", self._session)]
        return self._client.query(statement, job_config=config)

    def _rollback(self) -> None:
        try:
            self.execute("rollback transaction")
        except (ConfigError, UpstreamUnavailable):
            # The session ends with the transaction undone; the first error says why.
            return

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        from google.api_core.exceptions import GoogleAPIError, ServerError  # pyright: ignore[reportMissingImports]
        from google.auth.exceptions import GoogleAuthError  # pyright: ignore[reportMissingImports]

        try:
            yield
        except (ServerError, ConnectionError) as exc:
            raise UpstreamUnavailable(
                f"BigQuery project {self._project} stopped answering ({first_line(exc)}). Run again."
            ) from exc
        except GoogleAuthError as exc:
            cause, mend = explain("bigquery", str(exc))
            raise ConfigError(f"Target {self._target}: {cause}. {mend}") from exc
        except GoogleAPIError as exc:
            raise ConfigError(f"BigQuery project {self._project} refused a statement ({first_line(exc)}).") from exc


def _library() -> Any:  # noqa: ANN401  (a module that need not be installed)
    return importlib.import_module("google.cloud.bigquery")


def _typed(value: object) -> tuple[str, object]:
    """Return a value with its type in BigQuery; a time is one of UTC."""
    if isinstance(value, bool):
        return "BOOL", value
    if isinstance(value, int):
        return "INT64", value
    if isinstance(value, float):
        return "FLOAT64", value
    if isinstance(value, Decimal):
        return "NUMERIC", value
    if isinstance(value, datetime):
        return "TIMESTAMP", value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return "DATE", value
    return "STRING", str(value)


def _type(field: Any) -> str:  # noqa: ANN401  (the client's SchemaField)
    kind = str(field.field_type)
    name = _IN_SQL.get(kind, kind).lower()
    if field.precision is not None:
        name += f"({field.precision}{'' if field.scale is None else f',{field.scale}'})"
    return f"array<{name}>" if field.mode == "REPEATED" else name
