"""Fill the raw schema: with commits of git repositories, or sample data. Imports the warehouses, never the engine."""
