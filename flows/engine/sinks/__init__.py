"""Where node events go: task runs and log lines on the Prefect server. Imports `context` and `artifacts` alone."""
