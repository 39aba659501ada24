"""TODO deployments/webhook/start."""
