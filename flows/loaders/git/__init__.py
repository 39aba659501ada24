"""Commits of git repositories, loaded into the raw schema. Door: `load`."""
