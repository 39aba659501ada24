"""Write incidents as messages for Slack and PagerDuty, and send a message. Imports incidents, never routes."""
