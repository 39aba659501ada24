"""The monthly audit: a report on versions, late corrections, amounts and slow models. Door: `flow`."""
