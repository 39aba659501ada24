"""Tell people when something goes wrong: the right ones, once per incident.

    from flows.alerts import Incident, close_incident, open_incident

    open_incident(Incident("airbyte sync/orders", "error", "The sync of orders failed", target="prod"))
    close_incident("airbyte sync/orders", "prod")

Neither raises, and neither takes longer than `deadline_seconds` of routes.yml. In a flow under `with_alerts` of
flows/alerts/hooks.py they are sent at the end of the run, in one message with everything else about the run.
"""

from __future__ import annotations

from flows.alerts.incident import Incident, Severity
from flows.alerts.notify import close_incident, open_incident

__all__ = ["Incident", "Severity", "close_incident", "open_incident"]
