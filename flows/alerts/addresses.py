"""Where a destination is: the Prefect block that holds its address or key, and PagerDuty's own addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.alerts.send.delivery import NotSentError, SendDeadline, post
from infrastructure.commands import program
from infrastructure.errors import TributaryError

if TYPE_CHECKING:
    from flows.alerts.routes import Destination
    from flows.alerts.send.pagerduty import PagerDutyEvent

_EVENTS_URLS = {
    "us": "https://events.pagerduty.com/v2/enqueue",
    "eu": "https://events.eu.pagerduty.com/v2/enqueue",
}


class NoBlockError(NotSentError):
    """Say that the block that holds an address is not on the server."""


def read_address(destination: Destination) -> dict[str, Any]:
    """Read the block that holds a destination's address or key.

    Raises:
        NoBlockError: there is no such block.
        NotSentError: the server does not answer.
    """
    from infrastructure.server.client import connect

    type_slug, name = destination.block
    try:
        with connect() as server:
            saved = server.read_block(type_slug, name)
    except TributaryError as exc:
        raise NotSentError(f"its block {type_slug}/{name} could not be read: {exc}") from exc
    if saved is None:
        raise NoBlockError(f"the server has no block {type_slug}/{name}; {program()} setup makes it")
    return saved.data


def post_event(
    event: PagerDutyEvent, destination: Destination, address: dict[str, Any], deadline: SendDeadline
) -> None:
    """Send an event to PagerDuty.

    Args:
        address: what `read_address` returned.

    Raises:
        NotSentError: it was refused, or was not taken in time.
    """
    url = destination.events_url or _EVENTS_URLS.get(str(address.get("region_name")), _EVENTS_URLS["us"])
    post(url, {"routing_key": address["integration_key"], **event.document}, deadline)
