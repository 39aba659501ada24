"""TODO flows/runbook/full_refresh."""
