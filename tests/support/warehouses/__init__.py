"""The warehouses that the project is built on, some of them played by servers on this machine."""
