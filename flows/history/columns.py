"""The columns of the history: one row per node of a run, with the run's own columns repeated on each.

A run without any node has one row whose unique_id is null. Times are UTC without a zone, as in all raw tables.
"""

from __future__ import annotations

# About the run. Parquet stores repeated values once, so these cost a few bytes per file.
RUN = {
    "run_id": "varchar",
    "flow_run_id": "varchar",
    "project": "varchar",
    # Of the repository that the project was fetched from; null for a project in a folder.
    "commit_hash": "varchar",
    "target": "varchar",
    "warehouse": "varchar",
    "command": "varchar",
    "selection": "varchar",
    "is_full_refresh": "boolean",
    "scheduled_at": "timestamp",
    "flow_started_at": "timestamp",
    "run_started_at": "timestamp",
    "run_finished_at": "timestamp",
    "run_outcome": "varchar",
    "run_error": "varchar",
}

# About the node. `seconds` runs from its start to its end. `waited_for` is its parent that ended last, and
# `queue_seconds` from then to its start. `compile_seconds` and `execute_seconds` are dbt's own.
NODE = {
    "unique_id": "varchar",
    "name": "varchar",
    "resource_type": "varchar",
    "materialized": "varchar",
    "relation": "varchar",
    "tags": "varchar[]",
    "owner": "varchar",
    "severity": "varchar",
    "is_critical": "boolean",
    "tested": "varchar[]",
    # With what an ephemeral model among them reads, which has no row of its own.
    "depends_on": "varchar[]",
    # The file of its code, from the project's folder.
    "path": "varchar",
    "outcome": "varchar",
    "status": "varchar",
    "attempts": "integer",
    "thread": "varchar",
    "started_at": "timestamp",
    "finished_at": "timestamp",
    "seconds": "double",
    "waited_for": "varchar",
    "queue_seconds": "double",
    "compile_seconds": "double",
    "execute_seconds": "double",
    "rows_affected": "bigint",
    "failures": "bigint",
    # Of a table whose rows a health check counted.
    "row_count": "bigint",
    "bytes_processed": "bigint",
    "bytes_billed": "bigint",
    "slot_milliseconds": "bigint",
    "query_id": "varchar",
    "message": "varchar",
    # Of a source whose freshness was checked: its age, and the limits of its freshness.
    "max_loaded_at": "timestamp",
    "checked_at": "timestamp",
    "age_seconds": "double",
    "warn_after_seconds": "double",
    "error_after_seconds": "double",
}

COLUMNS = RUN | NODE
