"""The receiver's alerts: a sync failed, or succeeded again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from deployments.webhook.inbox.delivery import Delivery

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SyncAlerts:
    """Open and close the incidents of Airbyte's connections.

    Attributes:
        connections: returns the dbt sources by Airbyte connection.
    """

    connections: Callable[[], Mapping[str, Sequence[str]]]
    target: str

    def open(self, delivery: Delivery, reason: str) -> None:
        """Open the incident of a connection whose sync failed."""
        sources = ", ".join(self.connections().get(delivery.connection_id, ()))
        with _where_there_are_alerts():
            from flows.alerts import Incident, open_incident
            from flows.services.airbyte.sync_health import incident_key

            open_incident(
                Incident(
                    incident_key(delivery.connection_id),
                    "error",
                    f"Airbyte's sync {delivery.job_id} of {delivery.name or sources or delivery.connection_id} failed",
                    f"{reason or 'Airbyte gives no reason.'} Nothing was built from source {sources}.",
                    target=self.target,
                    tags=("airbyte",),
                )
            )

    def close(self, connection_id: str) -> None:
        """Close the incident of a connection whose sync succeeded."""
        with _where_there_are_alerts():
            from flows.alerts import close_incident
            from flows.services.airbyte.sync_health import incident_key

            close_incident(incident_key(connection_id), self.target)


@contextmanager
def _where_there_are_alerts() -> Iterator[None]:
    """Log that no alert is sent where Prefect, which alerts need, is not installed: on Lambda."""
    try:
        yield
    except ModuleNotFoundError as exc:
        logger.error("No alert was sent, as the package %s is not installed here", exc.name)
