"""The services beside dbt and Prefect, each spoken to by one small client."""
