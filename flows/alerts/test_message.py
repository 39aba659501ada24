"""Send a test message along the routes of a target, and say where it arrived."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flows.alerts.addresses import post_event, read_address
from flows.alerts.incident import Incident, OpenIncident, Severity
from flows.alerts.incident_store import Notice
from flows.alerts.send.delivery import NotSentError, SendDeadline, post
from flows.alerts.send.pagerduty import dedup_key, pagerduty_events
from flows.alerts.send.slack import slack_message
from infrastructure.commands import command

if TYPE_CHECKING:
    from flows.alerts.routes import Destination, Routes

_KEY = "test/message"


@dataclass(frozen=True)
class Trial:
    """The result of a test message at one destination.

    Attributes:
        error: None where it arrived.
    """

    destination: str
    error: str | None


def trial_incident(target: str, severity: Severity, owners: tuple[str, ...], tags: tuple[str, ...]) -> Incident:
    """Return an incident that says that it is a test."""
    return Incident(
        key=_KEY,
        severity=severity,
        title="This is a test of the alerts; nothing is wrong",
        text="An error would be shown here in full, with the rows that a failing test found.",
        target=target,
        owners=owners,
        tags=tags,
        retry_command=command(f"alerts test --target {target}"),
    )


def send_trial(incident: Incident, routes: Routes) -> list[Trial]:
    """Send a test message to every destination of an incident; a page is resolved at once."""
    found: list[Trial] = []
    for name in routes.destinations_of(incident):
        try:
            _send(incident, name, routes.destinations[name], routes)
            found.append(Trial(name, None))
        except NotSentError as exc:
            found.append(Trial(name, str(exc)))
    return found


def _send(incident: Incident, name: str, destination: Destination, routes: Routes) -> None:
    now = datetime.now(UTC)
    at = now.isoformat(timespec="seconds")
    deadline = SendDeadline.after(routes.deadline_seconds)
    address = read_address(destination)
    opened = OpenIncident(incident, at, at)
    if destination.slack:
        post(address["url"], slack_message(Notice(incident.target, new=(opened,)), routes.mention, now), deadline)
        return
    told = {name: {"dedup_key": dedup_key(incident.target, _KEY)}}
    closed = replace(opened, closed_at=at, told=told)
    for notice in (Notice(incident.target, new=(opened,)), Notice(incident.target, recovered=(closed,))):
        for event in pagerduty_events(notice, name):
            post_event(event, destination, address, deadline)
