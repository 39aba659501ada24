"""The one door to a target's warehouse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from infrastructure.commands import program
from infrastructure.errors import ConfigError

if TYPE_CHECKING:
    from flows.warehouses.warehouse import Warehouse
    from infrastructure.profiles import Profile


@contextmanager
def open_warehouse(profile: Profile, raw_schema: str = "raw", read_only: bool = False) -> Iterator[Warehouse]:
    """Connect to the warehouse of a target, and close the connection at the end.

    A DuckDB file belongs to one process at a time: close it before dbt runs.

    Args:
        raw_schema: where raw tables are loaded.
        read_only: let others read a DuckDB file meanwhile; elsewhere they can anyhow.

    Raises:
        ConfigError: the warehouse is not one of the four, its client is not installed, or the profile is wrong (file,
            folder, password, database).
        UpstreamUnavailable: the server does not answer, or another process holds the DuckDB file.
    """
    kind = _class_for(profile)
    if "\0" in raw_schema or "%" in raw_schema or not re.fullmatch(kind.schema_name, raw_schema):
        raise ConfigError(f"{raw_schema!r} is no name for a schema in {profile.warehouse}: give one such as raw.")
    with kind.connected(profile.target, profile.connection(), raw_schema, read_only) as warehouse:
        yield warehouse


def _class_for(profile: Profile) -> type[Warehouse]:
    match profile.warehouse:
        case "duckdb":
            from flows.warehouses.duckdb import DuckDBWarehouse as Found
        case "postgres":
            from flows.warehouses.postgres import PostgresWarehouse as Found
        case "snowflake":
            from flows.warehouses.snowflake import SnowflakeWarehouse as Found
        case "bigquery":
            from flows.warehouses.bigquery import BigQueryWarehouse as Found
        case other:
            raise ConfigError(
                f"Target {profile.target} is on {other}: what connects to a warehouse without dbt (loaders, the "
                "runbook, the table of the history) is for duckdb, postgres, snowflake and bigquery; "
                f"dbt itself runs there: {program()} run --target {profile.target}"
            )
    return Found
