"""TODO flows/engine/target."""
