"""TODO flows/loaders/git."""
