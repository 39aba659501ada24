"""TODO infrastructure/targets."""
