"""TODO flows/alerts/send."""
