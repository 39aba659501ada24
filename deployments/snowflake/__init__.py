"""dbt without a machine of one's own: streams and tasks inside Snowflake, written from the manifest."""
