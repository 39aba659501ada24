"""The monthly audit: a report of what is whole, what was corrected late, and what got slow. Door: `flow`."""
