"""The health checks: measure with dbt, compare with the history, send alerts.

Door: `flow`; the rules are in `flows.history`.
"""
