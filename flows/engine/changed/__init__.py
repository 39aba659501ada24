"""TODO flows/engine/changed."""
