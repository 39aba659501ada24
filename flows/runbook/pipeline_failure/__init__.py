"""No new data: find which loader or source stopped, and start it again. Door: `flow`."""
