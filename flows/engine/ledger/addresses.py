"""Where relations are, as OpenLineage's naming conventions say it, so that every tool means the same table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By adapter: the scheme of the namespace, and the usual port. https://openlineage.io/docs/spec/naming; where that is
# silent, as of DuckDB and ClickHouse, what OpenLineage's own integration of dbt writes.
_SCHEMES: Mapping[str, tuple[str, int | None]] = {
    "postgres": ("postgres", 5432),
    "redshift": ("redshift", 5439),
    "trino": ("trino", 8080),
    "clickhouse": ("clickhouse", 8123),
    "mysql": ("mysql", 3306),
    "databricks": ("databricks", None),
    "spark": ("spark", 10001),
    "sqlserver": ("mssql", 1433),
    "fabric": ("fabric-warehouse", None),
}
_HOSTS = ("host", "server", "software_host")
_QUOTES = str.maketrans("", "", '"`[]')


def address_of(output: Mapping[str, Any]) -> str:
    """Return the namespace of the relations of a dbt output, such as postgres://db:5432; no secret is part of it."""
    kind = str(output.get("type") or "")
    match kind:
        case "bigquery":
            return "bigquery"
        case "snowflake":
            return f"snowflake://{_plain(output.get('account'))}"
        case "duckdb":
            # An address of MotherDuck may carry a token after its name.
            return f"duckdb://{_plain(output.get('path')).partition('?')[0]}"
        case "athena":
            return f"awsathena://athena.{_plain(output.get('region_name'))}.amazonaws.com"
        case _:
            scheme, usual = _SCHEMES.get(kind, (kind, None))
            host = next((_plain(output[name]) for name in _HOSTS if output.get(name)), "")
            port = _plain(output.get("port") or usual)
            return f"{scheme}://{host}{f':{port}' if host and port else ''}"


def plain_relation(relation: str) -> str:
    """Return the dotted name of a relation without the quotes that its warehouse wants."""
    return relation.translate(_QUOTES)


def _plain(value: object) -> str:
    """Return a setting as text; one that dbt looks up in the environment, as it does secrets, is left out."""
    text = "" if value is None else str(value)
    return "" if "{{" in text or "@" in text else text
