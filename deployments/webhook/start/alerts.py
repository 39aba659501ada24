"""What people are told by the receiver: that a sync failed, and that the next one did not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from deployments.webhook.inbox.delivery import Delivery

logger = logging.getLogger(__name__)


def tell_failed(delivery: Delivery, reason: str, connections: Mapping[str, Sequence[str]], target: str) -> None:
    """Open the incident of a connection whose sync failed."""
    sources = ", ".join(connections.get(delivery.connection_id, ()))
    with _where_there_are_alerts():
        from flows.alerts import Incident, open_incident
        from flows.services.airbyte.sync_health import incident_key

        open_incident(
            Incident(
                incident_key(delivery.connection_id),
                "error",
                f"Airbyte's sync {delivery.job_id} of {delivery.name or sources or delivery.connection_id} failed",
                f"{reason or 'Airbyte gives no reason.'} Nothing was built from source {sources}.",
                target=target,
                tags=("airbyte",),
            )
        )


def tell_mended(connection_id: str, target: str) -> None:
    """Close the incident of a connection, whose sync went well."""
    with _where_there_are_alerts():
        from flows.alerts import close_incident
        from flows.services.airbyte.sync_health import incident_key

        close_incident(incident_key(connection_id), target)


@contextmanager
def _where_there_are_alerts() -> Iterator[None]:
    """Log that nobody is told where Prefect, which keeps the book of incidents, is not installed: on Lambda."""
    try:
        yield
    except ModuleNotFoundError as exc:
        logger.error("Nobody was told, as the package %s is not installed here", exc.name)
