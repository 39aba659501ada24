"""The health checks: measure with dbt, judge by the history, tell people.

Door: `flow`; the rules are in `flows.history`.
"""
