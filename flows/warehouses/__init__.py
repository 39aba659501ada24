"""DuckDB, PostgreSQL, Snowflake and BigQuery beyond dbt: raw tables are loaded, tables are measured and copied.

Doors: `raw_warehouse` to load, `tables` to ask and change. Imports the infrastructure alone.
"""
