"""Airbyte: its API, the events of finished syncs, and how its connections are doing. Door: `client`."""
