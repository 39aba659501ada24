"""TODO flows/pipelines."""
