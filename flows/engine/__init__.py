"""Running dbt: one child process per command, its JSON log stream as the contract."""
