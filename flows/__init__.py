"""What runs often: pipelines, runbook and command line, over the engine that runs dbt.

The rooms, from the bottom: engine, warehouses, loaders; alerts, services, history; report; pipelines; runbook; cli. A
room imports only rooms below it; `lint-imports` checks that. A flow of one's own imports its tasks from
`flows.tasks`.
"""
