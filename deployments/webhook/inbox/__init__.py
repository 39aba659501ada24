"""Keep deliveries until they are processed. Door: `inbox`."""
