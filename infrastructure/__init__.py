"""What runs once, or when configuration changes: targets, blocks, profiles, limits and automations.

The rooms, from the bottom: targets, blocks, server, connection_check; then `profiles`, `registration`,
`setup_profiles`. Imports neither flows nor deployments.
"""
