"""The escalation clock of incidents: triage starts it, an acknowledgement or the end of the incident stops it.

A step that is due is an incident of its own, so that it is routed, sent once, owed and closed like any other. No timer
runs: the flow `escalate_alerts` checks the clock on a schedule.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from flows.alerts.incident import Incident, OpenIncident
from flows.alerts.incident_store import Entries, record, store_of
from flows.alerts.notify import deliver
from flows.alerts.routes import EscalationStep, load_routes
from infrastructure.commands import command

TAG = "escalation"


def start_clock(keys: Iterable[str], target: str, now: datetime | None = None) -> list[str]:
    """Start the clock of open, unacknowledged incidents and return their keys; a clock that runs already goes on."""
    at = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    started: list[str] = []
    with store_of(target, os.environ).edit() as entries:
        for key in keys:
            entry = entries.incidents.get(key)
            if entry is None or entry.closed_at or entry.acknowledged_at:
                continue
            started.append(key)
            entries.incidents[key] = replace(entry, clock_at=entry.clock_at or at)
    return started


def acknowledge(keys: Iterable[str], target: str, who: str, now: datetime | None = None) -> list[str]:
    """Write down who looks after incidents, which stops their clocks; return their keys."""
    moment = now or datetime.now(UTC)
    done: list[str] = []
    with store_of(target, os.environ).edit() as entries:
        for key in keys:
            entry = entries.incidents.get(key)
            if entry is None or entry.closed_at:
                continue
            done.append(key)
            at = moment.isoformat(timespec="seconds")
            entries.incidents[key] = replace(entry, acknowledged_at=at, acknowledged_by=who)
    escalate(target, moment)
    return done


def escalate(target: str, now: datetime | None = None) -> list[Incident]:
    """Open an incident for each escalation step that is due, close those that are not, and send both.

    Returns:
        What is due now, told before or not.
    """
    moment = now or datetime.now(UTC)
    store = store_of(target, os.environ)
    if not store.exists:
        return []
    steps = load_routes().escalation
    entries = store.read()
    due = due_steps(entries, steps, target, moment)
    over = [key for key in entries.incidents if key.startswith(f"{TAG}/") and key not in {each.key for each in due}]
    if due or over:
        with store.edit() as kept:
            record(kept, due, over, moment)
        deliver(target)
    return due


def due_steps(entries: Entries, steps: Sequence[EscalationStep], target: str, now: datetime) -> list[Incident]:
    """Return an incident for each step whose time has come."""
    found: list[Incident] = []
    for number, step in enumerate(sorted(steps, key=lambda step: step.after_minutes), start=1):
        late = [
            entry
            for entry in entries.incidents.values()
            if _is_running(entry) and now - _started(entry) >= timedelta(minutes=step.after_minutes)
        ]
        if late:
            titles = "\n".join(f"- {entry.incident.title} ({entry.incident.key})" for entry in late)
            found.append(
                Incident(
                    key=f"{TAG}/{number}",
                    severity="critical",
                    title=f"Not acknowledged for {step.after_minutes:g} minutes: {late[0].incident.title}",
                    text=f"For {step.owner}, step {number} of the escalation:\n{titles}",
                    target=target,
                    owners=(step.owner,),
                    tags=(TAG,),
                    retry_command=command(f"alerts acknowledge --all --target {target} --who NAME"),
                )
            )
    return found


def _is_running(entry: OpenIncident) -> bool:
    return entry.clock_at is not None and entry.closed_at is None and entry.acknowledged_at is None


def _started(entry: OpenIncident) -> datetime:
    return datetime.fromisoformat(str(entry.clock_at))
