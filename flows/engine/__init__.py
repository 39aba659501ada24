"""Running dbt: one child process per command, its JSON log lines and artifacts as the contract.

Door: `run`. The rooms, from the bottom: context, artifacts; ledger, sinks; process; changed, target; run. Knows
neither tasks, pipelines, alerts nor reports.
"""
