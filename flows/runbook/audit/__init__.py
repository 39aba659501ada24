"""TODO flows/runbook/audit."""
