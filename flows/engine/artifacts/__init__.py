"""TODO flows/engine/artifacts."""
