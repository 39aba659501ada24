"""TODO flows/warehouses."""
