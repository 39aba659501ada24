"""The receiver: takes what Airbyte says of a finished sync, keeps it safe, and starts one run of it."""
