"""TODO flows/engine/ledger."""
