"""The Prefect server: its client, what it watches by itself, and a local one. Door: `client`."""
