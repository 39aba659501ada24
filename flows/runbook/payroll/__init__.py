"""TODO flows/runbook/payroll."""
