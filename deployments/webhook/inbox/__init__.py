"""Where deliveries are kept until they are dealt with. Door: `inbox`."""
