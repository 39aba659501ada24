"""Raw tables in a BigQuery dataset."""

from __future__ import annotations

import importlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from flows.warehouses.raw_tables import BATCH_ROWS, RawTable, Where, batches, check_columns, first_line
from infrastructure.connection_check.check import explain
from infrastructure.connection_check.reachability import require_reachable
from infrastructure.errors import ConfigError, UpstreamUnavailable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TYPES = {"varchar": "STRING", "text": "STRING", "bigint": "INT64", "integer": "INT64", "boolean": "BOOL"}


@contextmanager
def open_bigquery(target: str, settings: Mapping[str, Any], schema: str) -> Iterator[BigQueryWarehouse]:
    """Connect to a target's BigQuery project, and close the connection at the end.

    Raises:
        ConfigError: the client is not installed, or Google does not accept the sign-in.
        UpstreamUnavailable: nothing answers there.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+", schema):
        raise ConfigError(f"{schema!r} is no name for a dataset in BigQuery: give one such as raw.")
    with connected(target, settings) as (client, project):
        yield BigQueryWarehouse(client, target, f"{project}.{schema}", settings.get("location"))


@contextmanager
def connected(target: str, settings: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """Make the client of a target, and close it at the end; yields it and its project.

    Raises: as `open_bigquery`.
    """
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
    try:
        yield client, str(chosen["database"])
    finally:
        client.close()


class BigQueryWarehouse:
    """Keep the raw tables of one dataset in a BigQuery project (see RawWarehouse).

    Each call is whole or not done at all; there is no transaction over several. A load that was cut off is made good by
    the next one: sample data replaces its tables, and commits are compared with what is stored.
    """

    def __init__(self, client: Any, target: str, dataset: str, location: str | None) -> None:  # noqa: ANN401
        self._client = client
        self._target = target
        self._dataset = dataset
        self._location = location
        self._generator: DuckDBPyConnection | None = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Turn what BigQuery raises into the errors of this project."""
        from google.api_core.exceptions import GoogleAPIError, ServerError  # pyright: ignore[reportMissingImports]
        from google.auth.exceptions import GoogleAuthError  # pyright: ignore[reportMissingImports]

        try:
            yield
        except (ServerError, ConnectionError) as exc:
            raise UpstreamUnavailable(
                f"Dataset {self._dataset} stopped working on the load ({first_line(exc)}). Run again."
            ) from exc
        except (GoogleAPIError, GoogleAuthError) as exc:
            cause, mend = explain("bigquery", str(exc))
            raise ConfigError(f"Target {self._target}: {cause}. {mend}") from exc
        finally:
            if self._generator is not None:
                self._generator.close()
                self._generator = None

    def prepare(self, tables: Sequence[RawTable]) -> None:
        """Create the dataset and the tables that are missing."""
        bigquery = _library()

        dataset = bigquery.Dataset(self._dataset)
        if self._location:
            dataset.location = self._location
        self._client.create_dataset(dataset, exists_ok=True)
        there = {item.table_id for item in self._client.list_tables(self._dataset)}
        for table in tables:
            if table.name in there:
                found = self._client.get_table(self._name(table)).schema
                check_columns(self._dataset, table, [field.name for field in found])
            else:
                self._client.create_table(bigquery.Table(self._name(table), schema=self._schema_of(table)))

    def append(self, table: RawTable, rows: Iterable[Sequence[object]]) -> int:
        """Add rows in batches, and return how many."""
        return sum(self._load(table, batch, "WRITE_APPEND") for batch in batches(rows))

    def delete(self, table: RawTable, where: Where) -> int:
        """Delete the rows that fit, and return how many."""
        job = self._run(f"delete from `{self._name(table)}` where {{}}", where)
        job.result()
        return int(job.num_dml_affected_rows or 0)

    def select(self, table: RawTable, columns: Sequence[str], where: Where) -> Iterator[tuple[Any, ...]]:
        """Stream columns of the rows that fit."""
        names = ", ".join(f"`{name}`" for name in columns)
        job = self._run(f"select {names} from `{self._name(table)}` where {{}}", where)
        for row in job.result(page_size=BATCH_ROWS):
            yield tuple(
                value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value
                for value in row.values()
            )

    def count(self, table: RawTable, where: Where) -> int:
        """Count the rows that fit."""
        job = self._run(f"select count(*) as counted from `{self._name(table)}` where {{}}", where)
        return int(next(iter(job.result()))[0])

    def generator(self) -> DuckDBPyConnection:
        """Return a DuckDB connection in memory, which lives until the load ends."""
        if self._generator is None:
            import duckdb

            self._generator = duckdb.connect(":memory:")
        return self._generator

    def replace(self, table: RawTable, query: str) -> int:
        """Replace all rows by those of a query on the generator, and return how many there are."""
        result = self.generator().execute(f"select {', '.join(table.column_names)} from ({query})")
        written = 0
        # An empty table too has to lose the rows that it had.
        rows = result.fetchmany(BATCH_ROWS)
        how = "WRITE_TRUNCATE"
        while rows or how == "WRITE_TRUNCATE":
            written += self._load(table, rows, how)
            rows, how = result.fetchmany(BATCH_ROWS), "WRITE_APPEND"
        return written

    def note(self, table: RawTable) -> str | None:
        """Read the description of a table; None when there is none."""
        return self._client.get_table(self._name(table)).description or None

    def annotate(self, table: RawTable, note: str) -> None:
        """Describe a table."""
        found = self._client.get_table(self._name(table))
        found.description = note
        self._client.update_table(found, ["description"])

    def _name(self, table: RawTable) -> str:
        return f"{self._dataset}.{table.name}"

    def _schema_of(self, table: RawTable) -> list[Any]:
        bigquery = _library()

        fields_: list[Any] = []
        for name, kind in table.columns:
            # numeric(18,2) is NUMERIC, with as many decimals as it needs.
            base = kind.partition("(")[0]
            fields_.append(bigquery.SchemaField(name, _TYPES.get(base, base.upper())))
        return fields_

    def _load(self, table: RawTable, rows: Sequence[Sequence[object]], how: str) -> int:
        bigquery = _library()

        lines = "".join(
            json.dumps({name: _json(value) for name, value in zip(table.column_names, row, strict=True)}) + "\n"
            for row in rows
        )
        job = self._client.load_table_from_file(
            io.BytesIO(lines.encode()),
            self._name(table),
            job_config=bigquery.LoadJobConfig(
                source_format="NEWLINE_DELIMITED_JSON", schema=self._schema_of(table), write_disposition=how
            ),
        )
        job.result()
        return len(rows)

    def _run(self, statement: str, where: Where) -> Any:  # noqa: ANN401  (the client's QueryJob)
        bigquery = _library()

        parts: list[str] = []
        values: list[Any] = []
        for name, value in where.items():
            if isinstance(value, list):
                parts.append(f"`{name}` in unnest(@{name})")
                values.append(bigquery.ArrayQueryParameter(name, "STRING", value))
            else:
                parts.append(f"`{name}` = @{name}")
                values.append(bigquery.ScalarQueryParameter(name, "STRING", value))
        config = bigquery.QueryJobConfig(query_parameters=values)
        return self._client.query(statement.format(" and ".join(parts) or "true"), job_config=config)


def _library() -> Any:  # noqa: ANN401  (a module that need not be installed)
    return importlib.import_module("google.cloud.bigquery")


def _json(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
