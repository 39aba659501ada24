"""What people do to keep the data right, as flows: health checks, refreshes, audits, repairs."""
