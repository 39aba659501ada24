"""`deployments/schedules.yml` on a Prefect server: read, planned field by field, applied, or served by one process.

Doors: `schedule_file`, `plan`, `prefect_deployments`, `serve`. Not named after Prefect: a folder of a library's name
hides it.
"""
