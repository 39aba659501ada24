"""What runs once, or when configuration changes: targets, blocks, profiles and limits."""
