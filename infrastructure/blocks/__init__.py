"""The Prefect blocks that targets ask for, and their types, kept as data.

Door: `documents`. Imports `targets` alone.
"""
