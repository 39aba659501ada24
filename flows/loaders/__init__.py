"""What fills the raw schema: commits of git repositories, and sample data. Imports the warehouses, never the engine."""
