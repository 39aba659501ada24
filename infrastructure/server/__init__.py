"""The Prefect server: its client, its automations and slots, and a local server. Door: `client`."""
