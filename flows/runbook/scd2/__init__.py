"""TODO flows/runbook/scd2."""
