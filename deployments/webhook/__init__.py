"""The receiver of Airbyte's webhooks: stores each finished sync, and starts one run for it."""
