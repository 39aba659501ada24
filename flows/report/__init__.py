"""TODO flows/report."""
