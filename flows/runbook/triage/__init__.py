"""A critical test failed: what changed under it, and who is told. Door: `flow`."""
