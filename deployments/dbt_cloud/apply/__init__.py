"""TODO deployments/dbt_cloud/apply."""
