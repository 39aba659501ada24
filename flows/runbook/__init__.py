"""Procedures that keep the data right, a folder each: its flow, its steps or checks, its settings.

The door of each folder is its module `flow`. Procedures do not import each other; what two of them need is beside
them.
"""
