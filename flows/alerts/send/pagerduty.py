"""A notice as PagerDuty events, each with a key that stays the same from run to run: pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flows.alerts.incident import SEVERITIES, Incident, OpenIncident
from flows.alerts.incident_store import Notice
from infrastructure.plain_text import count_of

# PagerDuty's reference: a summary has 1,024 characters, a dedup key 255, an event 512 KB.
SUMMARY_LIMIT = 1024
KEY_LIMIT = 255
_TEXT_LIMIT = 8000
# Beyond this, what one check found is one alert: a page per model would bury the person on call, and PagerDuty
# takes a few hundred events a minute.
SINGLE_LIMIT = 20
_LISTED = 200


@dataclass(frozen=True)
class PagerDutyEvent:
    """One event to send, and the incidents in it.

    Attributes:
        document: without the routing key, which is a secret.
        incident_keys: the incidents that count as sent with it.
    """

    document: dict[str, Any]
    incident_keys: tuple[str, ...]

    @property
    def dedup_key(self) -> str:
        """Return the key by which PagerDuty identifies the alert."""
        return self.document["dedup_key"]


def dedup_key(target: str, key: str) -> str:
    """Return the key of an alert, made of target, check and node."""
    full = f"tributary/{target}/{key}"
    if len(full) <= KEY_LIMIT:
        return full
    return f"{full[: KEY_LIMIT - 17]}-{hashlib.sha256(full.encode()).hexdigest()[:16]}"


def pagerduty_events(notice: Notice, destination: str, still_open: Sequence[OpenIncident] = ()) -> list[PagerDutyEvent]:
    """Build the events of a notice: a trigger for each open alert, a resolve for each that is over.

    Args:
        destination: its name, under which the incident store has the keys of the open alerts.
        still_open: all open incidents; an alert about many is resolved with the last of them.
    """
    return [*_triggers(notice, destination), *_resolves(notice, destination, still_open)]


def _triggers(notice: Notice, destination: str) -> list[PagerDutyEvent]:
    by_check: dict[str, list[OpenIncident]] = {}
    for entry in notice.open:
        by_check.setdefault(entry.incident.check, []).append(entry)
    events: list[PagerDutyEvent] = []
    for check, entries in by_check.items():
        if len(entries) > SINGLE_LIMIT:
            events.append(_group_event(notice.target, check, entries))
        else:
            events += [_single_event(notice.target, entry, destination) for entry in entries]
    return events


def _single_event(target: str, entry: OpenIncident, destination: str) -> PagerDutyEvent:
    incident = entry.incident
    details = {
        "error": _cut(incident.text, _TEXT_LIMIT),
        "rows": incident.count,
        "owners": list(incident.owners),
        "read by": list(incident.affects[:20]),
        "try again": incident.retry_command,
        "since": entry.opened_at,
        "note": incident.note,
    }
    key = str(entry.told.get(destination, {}).get("dedup_key") or dedup_key(target, incident.key))
    payload = _payload(target, incident, f"{target}: {incident.title}" if target else incident.title, entry.opened_at)
    payload["custom_details"] = {name: value for name, value in details.items() if value}
    return PagerDutyEvent(_trigger(key, payload, incident.link), (incident.key,))


def _group_event(target: str, check: str, entries: Sequence[OpenIncident]) -> PagerDutyEvent:
    worst = min((entry.incident for entry in entries), key=lambda incident: SEVERITIES.index(incident.severity))
    summary = f"{target}: {count_of(len(entries), 'incident')} of {check}, such as {worst.title}"
    payload = _payload(target, worst, summary, min(entry.opened_at for entry in entries))
    payload["custom_details"] = {
        "incidents": [_cut(entry.incident.title, 200) for entry in entries[:_LISTED]],
        "not listed": max(0, len(entries) - _LISTED),
        "first error": _cut(worst.text, _TEXT_LIMIT),
        "owners": sorted({owner for entry in entries for owner in entry.incident.owners})[:50],
        "try again": worst.retry_command,
    }
    keys = tuple(entry.incident.key for entry in entries)
    return PagerDutyEvent(_trigger(dedup_key(target, check), payload, worst.link), keys)


def _resolves(notice: Notice, destination: str, still_open: Sequence[OpenIncident]) -> list[PagerDutyEvent]:
    open_keys = {str(entry.told.get(destination, {}).get("dedup_key")) for entry in still_open}
    by_key: dict[str, list[str]] = {}
    for entry in notice.recovered:
        key = str(entry.told[destination].get("dedup_key") or dedup_key(notice.target, entry.incident.key))
        by_key.setdefault(key, []).append(entry.incident.key)
    return [
        PagerDutyEvent({"event_action": "resolve", "dedup_key": key}, tuple(keys))
        for key, keys in by_key.items()
        if key not in open_keys
    ]


def _payload(target: str, incident: Incident, summary: str, since: str) -> dict[str, Any]:
    return {
        "summary": _cut(" ".join(summary.split()), SUMMARY_LIMIT),
        "source": target or "tributary",
        "severity": incident.severity,
        "timestamp": datetime.fromisoformat(since).isoformat(),
        "component": _cut(incident.key.partition("/")[2] or incident.key, 255),
        "group": target or "tributary",
        "class": incident.check,
    }


def _trigger(key: str, payload: dict[str, Any], link: str | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "event_action": "trigger",
        "dedup_key": key,
        "client": "Tributary",
        "payload": payload,
    }
    if link and link.startswith(("http://", "https://")):
        document |= {"client_url": link, "links": [{"href": link, "text": "The run"}]}
    return document


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
