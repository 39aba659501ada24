"""TODO flows/engine/sinks."""
