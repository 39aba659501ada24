"""The weekly full refresh, which keeps the old tables until the new ones are proven. Door: `flow`."""
