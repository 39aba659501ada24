"""Snowflake and BigQuery as the tests of the dbt project see a warehouse: raw SQL in, comparable rows out."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any

from tests.support.warehouses.builds import HERE, Rows, Warehouse


def statements(script: str) -> Iterator[str]:
    """Cut a script at its semicolons; comments have a line of their own."""
    text = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("--"))
    yield from (part for part in (cut.strip().rstrip(";") for cut in re.split(r";\s*(?:\n|$)", text)) if part)


def alike(rows: Iterable[Iterable[Any]]) -> Rows:
    """Return rows with values as every client could give them: naive UTC, decimals without their scale."""
    return [tuple(_alike(value) for value in row) for row in rows]


def _alike(value: object) -> object:
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, Decimal | float):
        return format(Decimal(str(value)).normalize() + 0, "f")
    return value


def _package_of(script: str) -> str:
    """Return name and version of the package that a local server is made of."""
    text = (HERE / script).read_text(encoding="utf-8")
    found = re.search(r'"(\w+)(?:\[\w+\])?==([\d.]+)"', text)
    assert found, f"{script} does not pin its package"
    return f"{found[1]} {found[2]}"


@dataclass
class Snowflake(Warehouse):
    """A Snowflake account."""

    output: dict[str, Any] = field(default_factory=dict)

    def dbt_output(self) -> dict[str, Any]:
        return self.output

    def server_version(self) -> str:
        return _package_of("snowflake_server.py")

    @cached_property
    def _connection(self) -> Any:
        import snowflake.connector

        names = ("account", "host", "port", "protocol", "user", "password", "role", "warehouse", "database", "schema")
        return snowflake.connector.connect(
            **{name: self.output[name] for name in names},
            session_parameters={"CLIENT_OUT_OF_BAND_TELEMETRY_ENABLED": False},
        )

    def query(self, sql: str) -> tuple[list[str], Rows]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return [column.name.lower() for column in cursor.description], alike(cursor.fetchall())

    def said_by_run(self, run_id: str) -> dict[str, Any]:
        """Return which nodes of a run are named by its statements, which statements name none, and its query tags."""
        address = f"http://{self.output['host']}:{self.output['port']}/statements"
        with urllib.request.urlopen(address, timeout=30) as answer:
            seen = json.load(answer)
        # `--check` is no run: its statements name the profile "check".
        of_dbt = [
            text for text in seen["statements"] if '"app": "dbt"' in text and '"profile_name": "check"' not in text
        ]
        tags = [json.loads(tag) for tag in dict.fromkeys(seen["query_tags"]) if tag]
        return {
            "nodes": len({node for text in of_dbt for node in re.findall(r'"node_id": "([^"]+)"', text)}),
            "unsaid": [text[:300] for text in of_dbt if '"flow_run_id": "' not in text][:5],
            "query_tags": [tag for tag in tags if tag["flow_run_id"] == run_id],
        }

    def execute(self, script: str) -> None:
        with self._connection.cursor() as cursor:
            for statement in statements(script):
                cursor.execute(statement)


@dataclass
class BigQuery(Warehouse):
    """A BigQuery project."""

    output: dict[str, Any] = field(default_factory=dict)

    def dbt_output(self) -> dict[str, Any]:
        return self.output

    def server_version(self) -> str:
        return _package_of("bigquery_server.py")

    @cached_property
    def _client(self) -> Any:
        from google.cloud import bigquery
        from google.oauth2.credentials import Credentials

        return bigquery.Client(
            project=self.output["project"],
            credentials=Credentials(self.output["token"]),
            location=self.output["location"],
            client_options={"api_endpoint": self.output["api_endpoint"]},
        )

    def query(self, sql: str) -> tuple[list[str], Rows]:
        result = self._client.query(sql).result()
        return [column.name.lower() for column in result.schema], alike(row.values() for row in result)

    def labels_of_run(self, run_id: str) -> dict[str, str]:
        """Return the labels that dbt makes of the comment of one of the models that a run made.

        The local server drops the labels of a job and keeps its text.
        """
        from dbt.adapters.bigquery.connections import BigQueryConnectionManager

        for job in self._client.list_jobs(max_results=5000):
            comment = re.match(r"/\* (\{.*?\}) \*/", getattr(job, "query", ""))
            if comment and f'"flow_run_id": "{run_id}"' in comment[1] and '"node_id": "model.' in comment[1]:
                return BigQueryConnectionManager._labels_from_query_comment(None, comment[1])
        return {}

    def execute(self, script: str) -> None:
        for statement in statements(script):
            # Two quotes in a row would be two strings there, one after the other.
            statement = re.sub(r"(?<=\w)''(?=\w)", r"\\'", re.sub(r"\b(varchar|text)\b", "string", statement))
            self._client.query(statement).result()
