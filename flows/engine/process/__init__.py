"""TODO flows/engine/process."""
