"""What Airbyte delivers, and a receiver of it in a process of its own."""
