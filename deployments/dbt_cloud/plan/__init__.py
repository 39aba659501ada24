"""Compare job files with dbt Cloud; change nothing. Door: `planning`."""
