"""DuckDB, PostgreSQL, Snowflake and BigQuery beyond dbt: raw tables are loaded, all tables measured, changed, copied.

Door: `door.open_warehouse` gives a `warehouse.Warehouse`; what differs stands in one file for each. Imports the
infrastructure alone.
"""
