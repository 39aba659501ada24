"""Change jobs in dbt Cloud, with a journal. Door: `applying`."""
