"""The table `dbt_run_history` in the warehouse itself, one row per node and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flows.history.rows import Row
from flows.warehouses.door import open_warehouse
from flows.warehouses.raw_tables import RawTable

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

SCHEMA_VARIABLE = "TRIBUTARY_HISTORY_SCHEMA"

# Column of the table, its type, and the column of the history that fills it.
_COLUMNS = (
    ("run_id", "varchar", "run_id"),
    ("run_date", "date", "run_started_at"),
    ("run_started_at", "timestamp", "run_started_at"),
    ("run_outcome", "varchar", "run_outcome"),
    ("flow_run_id", "varchar", "flow_run_id"),
    ("project", "varchar", "project"),
    ("target", "varchar", "target"),
    ("command", "varchar", "command"),
    ("unique_id", "varchar", "unique_id"),
    ("model_name", "varchar", "name"),
    ("resource_type", "varchar", "resource_type"),
    ("outcome", "varchar", "outcome"),
    ("status", "varchar", "status"),
    ("attempts", "bigint", "attempts"),
    ("thread", "varchar", "thread"),
    ("started_at", "timestamp", "started_at"),
    ("finished_at", "timestamp", "finished_at"),
    ("execution_time_seconds", "double precision", "seconds"),
    ("queue_seconds", "double precision", "queue_seconds"),
    ("compile_seconds", "double precision", "compile_seconds"),
    ("execute_seconds", "double precision", "execute_seconds"),
    ("rows_affected", "bigint", "rows_affected"),
    ("failures", "bigint", "failures"),
    ("bytes_processed", "bigint", "bytes_processed"),
    ("query_id", "varchar", "query_id"),
    ("message", "varchar", "message"),
)

TABLE = RawTable("dbt_run_history", tuple((name, kind) for name, kind, _ in _COLUMNS))


def table_schema(environ: Mapping[str, str]) -> str | None:
    """Return the schema for the table; None where it is not set up."""
    return environ.get(SCHEMA_VARIABLE) or None


def add_run(profile: Profile, schema: str, rows: Sequence[Row]) -> int:
    """Add the rows of one run to the table, created when missing; adding a run again replaces its rows.

    Raises:
        ConfigError: this kind of warehouse is not supported, or it refused.
        UpstreamUnavailable: the warehouse did not answer.
    """
    with open_warehouse(profile, schema) as warehouse, warehouse.loading():
        warehouse.prepare([TABLE])
        warehouse.delete(TABLE, {"run_id": rows[0]["run_id"]})
        return warehouse.append(TABLE, (_values(row) for row in rows))


def _values(row: Row) -> list[object]:
    values: list[object] = []
    for _, kind, source in _COLUMNS:
        value = row.get(source)
        values.append(value.date() if kind == "date" and value is not None else value)
    return values
