"""A BigQuery project."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar, cast

from flows.warehouses.raw_tables import RawTable
from flows.warehouses.relations import parts_of, with_places
from flows.warehouses.warehouse import Warehouse, first_line
from infrastructure.connection_check.check import explain
from infrastructure.connection_check.reachability import require_reachable
from infrastructure.errors import ConfigError, TributaryError, UpstreamUnavailable

# The client's names for what SQL calls otherwise.
_IN_SQL = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}


class BigQueryWarehouse(Warehouse):
    """See Warehouse. A clone shares the storage of what it was made from, and is made at once.

    While raw tables are loaded, each call is whole or not done at all; there is no transaction over several. A load
    that was cut off is made good by the next one: sample data replaces its tables, and commits are compared with what
    is stored.
    """

    kind = "bigquery"
    has_transactional_ddl = False
    schema_name = r"[A-Za-z0-9_]+"
    _types: ClassVar = {"text": "string", "integer": "int64", "timestamp": "timestamp", "boolean": "bool"}
    _raw_types: ClassVar = {"varchar": "STRING", "bigint": "INT64", "integer": "INT64", "double precision": "FLOAT64"}
    _one_of = "in unnest(?)"

    def __init__(self, target: str, project: str, client: Any, location: str | None, raw_schema: str) -> None:  # noqa: ANN401
        super().__init__(target, f"BigQuery project {project}", project, raw_schema)
        self._client = client
        self._location = location
        self._session: str | None = None

    @classmethod
    @contextmanager
    def connected(
        cls, target: str, settings: Mapping[str, Any], raw_schema: str, read_only: bool
    ) -> Iterator[BigQueryWarehouse]:
        client, project = _connect(target, settings)
        try:
            yield cls(target, project, client, settings.get("location"), raw_schema)
        finally:
            client.close()

    def columns(self, relation: str) -> dict[str, str]:
        table = self._table(relation)
        return {field.name: _type(field) for field in table.schema} if table is not None else {}

    def copy(self, relation: str, to: str) -> None:
        if self.is_view(to):
            self.drop(to)
        self.execute(f"create or replace table {to} clone {relation}")

    def view_statement(self, relation: str) -> str | None:
        table = self._table(relation)
        query = table.view_query if table is not None else None
        return f"create or replace view {relation} as {query}" if query else None

    def make_schema(self, schema: str) -> None:
        dataset = _library().Dataset(f"{self._database}.{schema}")
        if self._location:
            dataset.location = self._location
        with self._statement():
            self._client.create_dataset(dataset, exists_ok=True)

    def placed(self, schema: str, name: str) -> str:
        return f"`{self._database}`.`{schema}`.`{name}`"

    def column(self, name: str) -> str:
        return f"`{name}`"

    @contextmanager
    def loading(self) -> Iterator[None]:
        # Load jobs belong to no transaction.
        try:
            yield
        finally:
            self._close_generator()

    def note(self, table: RawTable) -> str | None:
        return self._table(self._raw(table)).description or None

    def annotate(self, table: RawTable, note: str) -> None:
        found = self._table(self._raw(table))
        found.description = note
        with self._statement():
            self._client.update_table(found, ["description"])

    @contextmanager
    def _statement(self, writes: bool = True) -> Iterator[None]:
        # Whole by itself, without a session for a transaction.
        with self._errors():
            if writes:
                self._require_right()
                self._has_written = True
            yield

    def _query(self, query: str, values: Sequence[object]) -> tuple[list[str], Iterable[Sequence[Any]]]:
        result = self._job(query, values).result(page_size=self.batch_rows)
        return [field.name.lower() for field in result.schema], (row.values() for row in result)

    def _run(self, statement: str, values: Sequence[object]) -> int:
        job = self._job(statement, values)
        job.result()
        return int(job.num_dml_affected_rows or 0)

    def _insert(self, table: RawTable, batch: Sequence[Sequence[object]]) -> None:
        bigquery = _library()

        lines = "".join(
            json.dumps({name: _json(value) for name, value in zip(table.column_names, row, strict=True)}) + "\n"
            for row in batch
        )
        schema = [bigquery.SchemaField(name, self._raw_type(kind)) for name, kind in table.columns]
        config = bigquery.LoadJobConfig(
            source_format="NEWLINE_DELIMITED_JSON", schema=schema, write_disposition="WRITE_APPEND"
        )
        place = self._id(self._raw(table))
        self._client.load_table_from_file(io.BytesIO(lines.encode()), place, job_config=config).result()

    def _raw_type(self, kind: str) -> str:
        # numeric(18,2) is NUMERIC, with as many decimals as it needs.
        return super()._raw_type(kind.partition("(")[0]).upper()

    def _kind_of(self, relation: str) -> str | None:
        table = self._table(relation)
        if table is None:
            return None
        # MATERIALIZED_VIEW is said with a space in SQL.
        kind = table.table_type.lower().replace("_", " ")
        return kind if "view" in kind else "table"

    def _id(self, relation: str) -> str:
        names = [name for name, _ in parts_of(relation)]
        if len(names) < 2:
            raise ConfigError(f"{relation} names no dataset, which BigQuery's tables have to be named with.")
        return ".".join(names if len(names) == 3 else [self._database, *names])

    def _table(self, relation: str) -> Any:  # noqa: ANN401  (the client's Table)
        from google.api_core.exceptions import NotFound  # pyright: ignore[reportMissingImports]

        with self._errors():
            try:
                return self._client.get_table(self._id(relation))
            except NotFound:
                return None

    def _job(self, statement: str, values: Sequence[object], create_session: bool = False) -> Any:  # noqa: ANN401
        bigquery = _library()

        # A null has no type that it could be sent as.
        given = [value for value in values if value is not None]
        if len(given) < len(values):
            places = ["null" if value is None else "?" for value in values]
            statement = with_places(statement, places, has_escapes=True)
        config = bigquery.QueryJobConfig(query_parameters=[_parameter(value) for value in given])
        if create_session:
            config.create_session = True
        if self._session:
            config.connection_properties = [bigquery.ConnectionProperty("session_id", self._session)]
        return self._client.query(statement, job_config=config)

    def _begin(self) -> None:
        # Statements of one session share a transaction.
        job = self._job("begin transaction", (), create_session=True)
        job.result()
        self._session = job.session_info.session_id

    def _commit(self) -> None:
        self._job("commit transaction", ()).result()
        self._session = None

    def _rollback(self) -> None:
        # The session ends with the transaction undone, also where this fails.
        try:
            self._job("rollback transaction", ()).result()
        finally:
            self._session = None

    def _explained(self, exc: Exception) -> TributaryError | None:
        from google.api_core.exceptions import GoogleAPIError, ServerError  # pyright: ignore[reportMissingImports]
        from google.auth.exceptions import GoogleAuthError  # pyright: ignore[reportMissingImports]

        if isinstance(exc, ServerError | ConnectionError):
            return UpstreamUnavailable(f"{self._place} stopped answering ({first_line(exc)}). Run again.")
        if isinstance(exc, GoogleAuthError):
            cause, mend = explain("bigquery", str(exc))
            return ConfigError(f"Target {self._target}: {cause}. {mend}")
        if isinstance(exc, GoogleAPIError):
            return ConfigError(f"{self._place} refused a statement ({first_line(exc)}).")
        return None


def _connect(target: str, settings: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the client of a target, and its project."""
    try:
        from dbt.adapters.bigquery.clients import create_bigquery_client  # pyright: ignore[reportMissingImports]
        from dbt.adapters.bigquery.credentials import BigQueryCredentials  # pyright: ignore[reportMissingImports]
    except ImportError as exc:
        raise ConfigError(
            f"Target {target} is on BigQuery, and its client is not installed: uv sync --extra bigquery"
        ) from exc
    require_reachable(target, settings)
    # dbt's own class, so that every way of signing in works here as it does there.
    known = {field.name for field in fields(BigQueryCredentials)}
    translated = BigQueryCredentials.translate_aliases(dict(settings))
    chosen = {name: value for name, value in translated.items() if name in known}
    chosen.setdefault("execution_project", chosen.get("database"))
    try:
        client = create_bigquery_client(BigQueryCredentials(**chosen))
    except Exception as exc:
        cause, mend = explain("bigquery", str(exc))
        raise ConfigError(f"Target {target}: {cause}. {mend}") from exc
    return client, str(chosen["database"])


def _library() -> Any:  # noqa: ANN401  (a module that need not be installed)
    return importlib.import_module("google.cloud.bigquery")


def _parameter(value: object) -> Any:  # noqa: ANN401  (the client's)
    bigquery = _library()

    if isinstance(value, list):
        values = cast(list[object], value)
        return bigquery.ArrayQueryParameter(None, _typed(values[0])[0] if values else "STRING", values)
    return bigquery.ScalarQueryParameter(None, *_typed(value))


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


def _json(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
