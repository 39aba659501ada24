"""Run dbt without a machine: streams and tasks inside Snowflake, written from the manifest."""
