# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["bqemulator==1.4.0", "duckdb==2.0.0", "numpy>=2,<3"]
#
# [tool.uv]
# exclude-newer = "2026-11-01T00:00:00Z"
# ///
"""A local BigQuery: the bqemulator package, made to behave like the service where dbt depends on it.

`uv run --script` makes an environment of its own for it, because it wants another sqlglot than the project and than
the local Snowflake. What is changed, and why:

spatial     is optional: only ST_* functions need DuckDB's extension, which is downloaded.
numeric     is decimal(38, 9) in a cast too; the package takes DuckDB's default, decimal(18, 3).
parameters  of types are refused in casts, as BigQuery does; the package drops them in silence.
isoweek     is DuckDB's week, which begins on Monday; the package hands the word on.
distinct    array_agg(distinct x ignore nulls), which dynamic insert_overwrite and microbatch use.
contracts   create table t (columns) as (select …), with the select in parentheses.
clones      replace what is there, where they say so.
docs        `dataset.__TABLES__` and INFORMATION_SCHEMA.COLUMN_FIELD_PATHS, which `dbt docs generate` reads; the latter
            without nested fields and descriptions.
"""

from __future__ import annotations

import re
from typing import Any

import bqemulator.jobs.executor as executor
import bqemulator.sql.rewriter.aggregate_variants as aggregate_variants
import bqemulator.sql.rewriter.create_table_schema_ctas as create_table
import bqemulator.versioning.ddl as versioning
from bqemulator.cli import main
from bqemulator.domain.errors import InvalidQueryError
from bqemulator.sql.rewriter.information_schema import _render_data_type
from bqemulator.storage.engine import DuckDBEngine
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB

_PARAMETER_IN_CAST = re.compile(r"\bas\s+(?:(?:big)?(?:numeric|decimal)|string|bytes)\s*\(\s*\d", re.IGNORECASE)
_TABLES = re.compile(
    r"`?(?P<project>[\w\-]+)`?\.`?(?P<dataset>[\w\-]+)`?\.`?__TABLES__`?", re.IGNORECASE
)  # Views of INFORMATION_SCHEMA that the package has without their columns.
_EMPTY_VIEWS = re.compile(
    r"[`\w\-]+\.[`\w\-]+\.`?INFORMATION_SCHEMA`?\.`?(MATERIALIZED_VIEWS|TABLE_OPTIONS)`?", re.IGNORECASE
)
_FIELDS = re.compile(
    r"`?(?P<project>[\w\-]+)`?\.`?(?P<dataset>[\w\-]+)`?\.`?INFORMATION_SCHEMA`?\.`?(?:COLUMN_FIELD_PATHS|COLUMNS)`?\b",
    re.IGNORECASE,
)
_NO_ROWS = (
    "(select '' as table_catalog, '' as table_schema, '' as table_name, '' as option_name, '' as option_value "
    "from (select 1 as one) where one = 0)"
)

# A clone that replaces a table; the package makes it only where nothing is.
_CLONE = re.compile(r"^\s*create\s+or\s+replace\s+table\s+(\S+)\s+clone\s+(\S+?)\s*;?\s*$", re.IGNORECASE)
_parse_versioning = versioning.VersioningDDLRouter.parse

_datatype_sql = DuckDB.Generator.datatype_sql
_datetrunc_sql = DuckDB.Generator.datetrunc_sql
_first_select = create_table._first_select
_run_query_body = executor._run_query_body


def _load_spatial(self: Any) -> None:
    self._connection.execute("set autoinstall_known_extensions = false")


def _numeric_sql(self: Any, expression: exp.DataType) -> str:
    if expression.this == exp.DataType.Type.DECIMAL and not expression.expressions:
        return "DECIMAL(38, 9)"
    return _datatype_sql(self, expression)


def _filter_target(expression: Any) -> Any:
    while isinstance(expression, (exp.Order, exp.Distinct)):
        expression = expression.expressions[0] if isinstance(expression, exp.Distinct) else expression.this
    return expression


def _select_in_parentheses(body: Any) -> Any:
    return _first_select(body.unnest() if isinstance(body, exp.Subquery) else body)


def _tables_of(catalog: Any, project: str, dataset: str) -> str:
    kinds = {table.table_id: 1 for table in catalog.list_tables(project, dataset)}
    kinds |= {view.table_id: 2 for view in catalog.list_views(project, dataset)}
    # dbt asks for datasets too that nothing has been built in yet.
    kinds = kinds or {"": 1}
    rows = " union all ".join(
        f"select '{project}' as project_id, '{dataset}' as dataset_id, '{name}' as table_id, 0 as creation_time, "
        f"0 as last_modified_time, 0 as row_count, 0 as size_bytes, {kind} as type"
        for name, kind in kinds.items()
    )
    return f"({rows})"


def _versioning(self: Any, sql: str) -> Any:
    return None if _CLONE.match(sql) else _parse_versioning(self, sql)


def _fields_of(catalog: Any, project: str, dataset: str) -> str:
    """Return what both views say of columns; the package's own lose the names of theirs inside a long query."""
    found = [
        (table.table_id, field.name, _render_data_type(field), place)
        for table in catalog.list_tables(project, dataset)
        for place, field in enumerate(table.schema_.fields, start=1)
    ]
    rows = " union all ".join(
        f"select '{project}' as table_catalog, '{dataset}' as table_schema, '{table}' as table_name, "
        f"'{column}' as column_name, '{column}' as field_path, '{kind}' as data_type, '' as description, "
        f"{place} as ordinal_position, 'NO' as is_partitioning_column, "
        "cast(null as int64) as clustering_ordinal_position"
        for table, column, kind, place in found or [("", "", "", 1)]
    )
    return f"({rows})"


def _date_trunc(generator: Any, expression: exp.DateTrunc) -> str:
    if expression.unit.name.upper() != "ISOWEEK":
        return _datetrunc_sql(generator, expression)
    day = generator.sql(expression, "this")
    # Not as date_trunc('week', …), which another rule would take for a week that begins on Sunday.
    return f"CAST({day} - TO_DAYS(CAST(ISODOW({day}) - 1 AS INTEGER)) AS DATE)"


async def _as_bigquery_would(**arguments: Any) -> Any:
    statement = arguments["bq_sql"]
    if _PARAMETER_IN_CAST.search(statement):
        raise InvalidQueryError("Parameterized types are not allowed in CAST expressions.")
    statement = _CLONE.sub(r"create or replace table \1 as select * from \2", statement)
    catalog = arguments["ctx"].catalog
    statement = _TABLES.sub(lambda match: _tables_of(catalog, match["project"], match["dataset"]), statement)
    statement = _EMPTY_VIEWS.sub(_NO_ROWS, statement)
    if "COLUMN_FIELD_PATHS" in statement:
        statement = _FIELDS.sub(lambda match: _fields_of(catalog, match["project"], match["dataset"]), statement)
    return await _run_query_body(**{**arguments, "bq_sql": statement})


DuckDBEngine._load_spatial = _load_spatial
versioning.VersioningDDLRouter.parse = _versioning
DuckDBEngine._load_format_extensions = lambda self: None
DuckDB.Generator.datatype_sql = _numeric_sql
DuckDB.Generator.datetrunc_sql = _date_trunc
aggregate_variants._filter_target = _filter_target
create_table._first_select = _select_in_parentheses
executor._run_query_body = _as_bigquery_would

if __name__ == "__main__":
    main()
