"""TODO deployments/webhook/receive."""
