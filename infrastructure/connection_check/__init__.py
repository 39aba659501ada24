"""Check whether dbt can connect to a target and build there. Door: `check`."""
