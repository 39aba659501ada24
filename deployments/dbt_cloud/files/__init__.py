"""TODO deployments/dbt_cloud/files."""
