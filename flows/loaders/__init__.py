"""TODO flows/loaders."""
