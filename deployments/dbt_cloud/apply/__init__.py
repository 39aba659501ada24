"""What changes jobs in dbt Cloud, written down before and after. Door: `applying`."""
