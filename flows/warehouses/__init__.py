"""Load, measure, change and copy tables in DuckDB, PostgreSQL, Snowflake and BigQuery.

Door: `door.open_warehouse` returns a `warehouse.Warehouse`; each kind has a file of its own. Imports the
infrastructure alone.
"""
