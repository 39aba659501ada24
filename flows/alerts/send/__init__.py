"""How an incident is said to Slack and PagerDuty, and how a message is sent. Imports incidents, never routes."""
