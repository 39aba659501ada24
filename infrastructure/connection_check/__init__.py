"""TODO infrastructure/connection_check."""
