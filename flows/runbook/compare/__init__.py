"""TODO flows/runbook/compare."""
