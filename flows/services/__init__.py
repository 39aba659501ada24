"""The services beside dbt and Prefect, each spoken to by one small client: Airbyte, Redis, dbt Cloud.

A client knows nothing of pipelines or of the report; `sync_health` alone describes incidents.
"""
