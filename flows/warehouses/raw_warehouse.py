"""Writing raw tables to the warehouse of a target: DuckDB, PostgreSQL, Snowflake or BigQuery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.warehouses.raw_tables import RawWarehouse
from infrastructure.errors import ConfigError

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

WRITABLE = ("duckdb", "postgres", "snowflake", "bigquery")


@contextmanager
def connect(profile: Profile, raw_schema: str = "raw") -> Iterator[RawWarehouse]:
    """Connect to the warehouse of a target, and close the connection at the end.

    Raises:
        ConfigError: the warehouse is not one the loaders write to, its client is not installed, or the
            profile is wrong (file, folder, password, database).
        UpstreamUnavailable: the server does not answer, or another process holds the DuckDB file.
    """
    # psycopg2 would take a % for a place of a value.
    if not raw_schema or "\0" in raw_schema or "%" in raw_schema:
        raise ConfigError(f"{raw_schema!r} is no name for a schema: give one such as raw.")
    if profile.warehouse == "duckdb":
        from flows.warehouses.raw_duckdb import open_duckdb as open_warehouse
    elif profile.warehouse == "postgres":
        from flows.warehouses.raw_postgres import open_postgres as open_warehouse
    elif profile.warehouse == "snowflake":
        from flows.warehouses.raw_snowflake import open_snowflake as open_warehouse
    elif profile.warehouse == "bigquery":
        from flows.warehouses.raw_bigquery import open_bigquery as open_warehouse
    else:
        raise ConfigError(
            f"Target {profile.target} is on {profile.warehouse}, and raw data can be loaded into "
            f"{', '.join(WRITABLE[:-1])} and {WRITABLE[-1]} only: there, Airbyte or another loader fills the schema "
            f"{raw_schema}. dbt itself runs on {profile.warehouse}: "
            f"uv run python -m flows run --target {profile.target}"
        )
    with open_warehouse(profile.target, profile.connection(), raw_schema) as warehouse:
        yield warehouse
