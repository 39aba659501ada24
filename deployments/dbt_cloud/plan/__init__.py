"""TODO deployments/dbt_cloud/plan."""
