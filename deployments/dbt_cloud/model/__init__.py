"""A job of dbt Cloud as values: its definition, its name, its schedule, a change to it. No effects."""
