"""TODO flows/runbook/triage."""
