"""TODO flows/runbook/health."""
