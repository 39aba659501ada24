"""TODO flows/services/airbyte."""
