"""From an Airbyte sync to dbt, by way of the receiver: how long it takes, and what is lost."""
