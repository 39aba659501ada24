"""TODO deployments/dbt_cloud/model."""
