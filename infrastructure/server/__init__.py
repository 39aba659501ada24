"""TODO infrastructure/server."""
