"""Many workers on several API servers of Prefect, and what kills do to their runs."""
