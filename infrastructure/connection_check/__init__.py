"""Whether dbt can connect to a target and build there, in one sentence. Door: `check`."""
