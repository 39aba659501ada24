"""The flows that build and test a project, dbt's commands as Prefect tasks, and the selections that they run.

Doors: `full`, `transform`, `new_data`, `reconcile`, `cloud_job`, `tasks`. Imports neither the runbook nor the command
line.
"""
