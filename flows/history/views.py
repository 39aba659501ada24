"""The views for queries of the history: `nodes`, `runs` and `latest`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.history.columns import COLUMNS, RUN

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RUN_KEY = "project, target, run_id"


def literal(text: str) -> str:
    """Return a text as a literal in DuckDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def parquet(files: Sequence[str]) -> str:
    """Return the SQL that reads files, with the name of each row's file in `filename`."""
    return f"read_parquet([{', '.join(map(literal, files))}], union_by_name = true, filename = true)"


def create_views(
    connection: DuckDBPyConnection, files: Sequence[str], where: str = "true", is_small: bool = False
) -> None:
    """Make the views over these files.

    `nodes` has a row per node and run, `runs` a row per run, and `latest` the last result of every node in the project:
    a node that a later build of everything did not have is left out.

    Args:
        where: a condition on the rows, such as those of one target.
        is_small: read the rows once, into memory, and not for each query.
    """
    # A file from before a column was added has nulls in it.
    rows = "select " + ", ".join(f"null::{kind} as {name}" for name, kind in COLUMNS.items()) + " limit 0"
    if files:
        # After a merge, a run is in two files until the old one is deleted: it is read from the last.
        rows = (
            f"({rows}) union all by name select * exclude (filename) from {parquet(files)} semi join "
            f"(select {RUN_KEY}, max(filename) as filename from {parquet(files)} group by {RUN_KEY}) "
            f"using ({RUN_KEY}, filename)"
        )
    kind = "table" if is_small else "view"
    connection.execute(f"create or replace temp {kind} history as select * from ({rows}) where {where}")
    connection.execute("create or replace temp view nodes as from history where unique_id is not null")
    connection.execute(
        f"""
        create or replace temp view runs as
        select
            {", ".join(RUN)},
            epoch(run_finished_at - run_started_at) as seconds,
            count(unique_id) as nodes,
            count(*) filter (where outcome = 'succeeded') as succeeded,
            count(*) filter (where outcome = 'warned') as warned,
            count(*) filter (where outcome = 'failed') as failed,
            count(*) filter (where outcome = 'skipped') as skipped,
            sum(bytes_processed) as bytes_processed
        from history
        group by all
        """
    )
    connection.execute(
        """
        create or replace temp view latest as
        with whole_builds as (
            select project, target, max(run_started_at) as whole_build_at
            from runs
            where command = 'dbt build' and selection is null and nodes > 0 and (run_error is null or failed > 0)
            group by all
        ),
        placed as (
            select *, row_number() over (partition by project, target, unique_id order by finished_at desc) as place
            from nodes
            where outcome is not null
        )
        select placed.* exclude (place)
        from placed
        left join whole_builds using (project, target)
        where place = 1
            and (resource_type = 'source' or whole_build_at is null or run_started_at >= whole_build_at)
        """
    )
