"""TODO deployments/webhook/inbox."""
