"""The values of a dbt Cloud job: its definition, name, schedule and changes. No effects."""
