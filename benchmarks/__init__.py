"""Measurements run by hand: each is a command that prints a table."""
