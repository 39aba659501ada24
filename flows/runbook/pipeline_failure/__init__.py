"""No new data: find out which loader or source stopped, and set it going again. Door: `flow`."""
