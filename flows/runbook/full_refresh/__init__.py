"""The weekly full refresh, with the old tables kept until the new ones have proven themselves. Door: `flow`."""
