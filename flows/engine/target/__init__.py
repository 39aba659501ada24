"""One writer per target: a file lock on this machine, a lease on the Prefect server.

Imports `context`, `ledger`, `process`, and the warehouses, which ask it before they write.
"""
