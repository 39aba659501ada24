"""What files say against what dbt Cloud has; nothing is changed. Door: `planning`."""
