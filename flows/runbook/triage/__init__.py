"""A critical test failed: find what changed upstream of it, and start the escalation. Door: `flow`."""
