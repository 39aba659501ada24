"""Repair of keys that have several current versions in a table of versions. Door: `flow`."""
