"""TODO deployments/schedules."""
