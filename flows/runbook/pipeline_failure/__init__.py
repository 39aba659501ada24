"""TODO flows/runbook/pipeline_failure."""
