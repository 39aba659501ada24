"""One writer per target: a file lock on this machine, a lease on the Prefect server. Imports `context` alone."""
