"""Two targets side by side, or one before and after a change. Door: `flow`."""
