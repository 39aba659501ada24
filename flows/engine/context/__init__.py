"""TODO flows/engine/context."""
