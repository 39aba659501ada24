"""Clients of the services beside dbt and Prefect: Airbyte, Redis and dbt Cloud.

A client knows nothing of pipelines or of the report; `sync_health` alone describes incidents.
"""
