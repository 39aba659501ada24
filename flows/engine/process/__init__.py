"""dbt as a child process: started, asked, stopped.

The place that starts dbt. Imports `context`, `artifacts` and `ledger`.
"""
