"""TODO infrastructure/blocks."""
