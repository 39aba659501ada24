"""Record incidents and send them to their destinations: the one place of alerts with effects.

No function here raises, and none takes longer than `deadline_seconds` of routes.yml: a run must not depend on its
alerts. What could not be sent stays in the incident store and is sent with the next report of that target.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

from flows.alerts.addresses import NoBlockError, post_event, read_address
from flows.alerts.incident import Incident, OpenIncident, Severity
from flows.alerts.incident_store import (
    Entries,
    IncidentStore,
    Notice,
    assume_told,
    file_lock,
    forget_assumed,
    is_assumed,
    is_settled,
    mark_told,
    notice_for,
    record,
    store_of,
)
from flows.alerts.send.delivery import NotSentError, SendDeadline, post
from flows.engine.context.reporting import current_reporter
from infrastructure.errors import ConfigError
from infrastructure.plain_text import one_line

if TYPE_CHECKING:
    from flows.alerts.routes import Destination, Routes


# Each is a request that the run waits for, and PagerDuty takes some hundred a minute. The next run sends the rest.
_MOST_ASSUMED = 50


@dataclass(frozen=True)
class Unsent:
    """A destination to which nothing could be sent, and why."""

    destination: str
    reason: str

    def __str__(self) -> str:
        return f"{self.destination}: {self.reason}"


def open_incident(incident: Incident) -> None:
    """Record that something is wrong and send it; an incident that was sent before is sent again only when it changes.

    In a flow with alerts, it is sent at the end of the run, with everything else.
    """
    _report(incident.target, opened=[incident])


def close_incident(key: str, target: str) -> None:
    """Record that something is no longer wrong and send that; cheap where it was not open."""
    _report(target, closed=[key])


def _report(target: str, opened: Sequence[Incident] = (), closed: Sequence[str] = ()) -> None:
    from flows.alerts.flow_runs import is_sent_at_flow_end

    write_down(target, opened, closed)
    if not is_sent_at_flow_end(target):
        deliver(target)


def tell(target: str, opened: Sequence[Incident] = (), closed: Sequence[str] = ()) -> tuple[Unsent, ...]:
    """Record which incidents are open and which are over, and send them.

    Returns:
        The destinations that could not be reached; they are tried again with the next report of this target.
    """
    write_down(target, opened, closed)
    return deliver(target)


def write_down(
    target: str, opened: Sequence[Incident] = (), closed: Sequence[str] = (), passed: Iterable[Incident] = ()
) -> None:
    """Record which incidents are open and which are over, without sending anything yet.

    Args:
        passed: the incidents that would be open had their nodes failed, worst first. PagerDuty is told that they are
            over even where this store does not know them: a run with another state folder may have opened them.
    """
    store = store_of(target, os.environ)
    now = datetime.now(UTC)
    try:
        known = store.read()
        guessed = (Incident(key, _severity_of(key), key, target=target) for key in closed)
        assumed = _assumed(known, chain(guessed, passed), {incident.key for incident in opened}, now)
        if not opened and not assumed and not known.incidents.keys() & set(closed):
            return
        with store.edit() as entries:
            record(entries, opened, closed, now)
            assume_told(entries, assumed, now)
    except Exception as exc:  # noqa: BLE001  (a run must not depend on its alerts)
        said = one_line(str(exc))
        current_reporter().note(f"The incidents of target {target} could not be written to {store.path}: {said}")


def _severity_of(key: str) -> Severity:
    """Return the highest severity that an incident with this key can have."""
    # The end of a flow or a command is never critical by itself.
    return "error" if key.startswith(("flow/", "command/")) else "critical"


def _assumed(
    known: Entries, passed: Iterable[Incident], opened: Set[str], now: datetime
) -> list[tuple[Incident, Sequence[str]]]:
    from flows.alerts.routes import load_routes

    routes: Routes | None = None
    found: dict[str, tuple[Incident, Sequence[str]]] = {}
    for incident in passed:
        if incident.key in opened or incident.key in found or is_settled(known, incident.key, now):
            continue
        try:
            routes = routes or load_routes()
        except ConfigError:
            # `deliver` reports it; the incidents are recorded in any case.
            return []
        if pagers := routes.pagers(routes.destinations_of(incident)):
            found[incident.key] = (incident, pagers)
        if len(found) == _MOST_ASSUMED:
            break
    return list(found.values())


def deliver(target: str) -> tuple[Unsent, ...]:
    """Send each destination what it has not been told yet about a target, and note what could not be sent."""
    store = store_of(target, os.environ)
    if not store.exists:
        return ()
    from flows.alerts.routes import load_routes

    try:
        if not store.read().incidents:
            return ()
        routes = load_routes()
        unsent = _Delivery(target, store, routes).run()
    except Exception as exc:  # noqa: BLE001  (a run must not depend on its alerts)
        current_reporter().note(f"No alert of target {target} was sent: {exc}")
        return (Unsent("all destinations", one_line(str(exc))),)
    for entry in unsent:
        current_reporter().note(f"An alert of target {target} was not sent to {entry}. The next run sends it.")
    return unsent


class _Delivery:
    """One pass over all destinations, each in its own thread, so that a slow one does not hold up the others."""

    def __init__(self, target: str, store: IncidentStore, routes: Routes) -> None:
        self._target = target
        self._store = store
        self._routes = routes
        self._deadline = SendDeadline.after(routes.deadline_seconds)
        self._outcomes: dict[str, NotSentError | None] = {}

    def run(self) -> tuple[Unsent, ...]:
        entries = self._store.read()
        names = [name for name in self._routes.destinations if self._is_owed(entries, name)]
        # A failure to send only ends that are assumed is not worth a note.
        quiet = {name for name in names if self._owes_guesses_only(entries, name)}
        threads = [self._start_thread(name) for name in names]
        for thread in threads:
            # A little more than the deadline, so that what is sent at the last moment is still recorded.
            thread.join(self._deadline.left_seconds + 0.5)
        late = NotSentError(f"it was not done within {self._routes.deadline_seconds:.0f} s")
        failed = {name: error for name in names if name not in quiet and (error := self._outcomes.get(name, late))}
        # Where no destination is set up at all, alerts are not wanted.
        if len(failed) == len(names) - len(quiet) and all(isinstance(error, NoBlockError) for error in failed.values()):
            return ()
        return tuple(Unsent(name, str(error)) for name, error in failed.items())

    def _start_thread(self, name: str) -> threading.Thread:
        # Prefect's current settings, such as a temporary server's address, are context variables.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._tell, name), name=f"alerts-{name}", daemon=True)
        thread.start()
        return thread

    def _tell(self, name: str) -> None:
        destination = self._routes.destinations[name]
        try:
            lock = self._store.path.with_suffix(f".{name}.lock")
            # Without the lock, two runs at once would send the same message twice.
            with file_lock(lock, self._deadline.left_seconds):
                send = self._slack if destination.slack else self._pagerduty
                send(name, destination, read_address(destination))
            self._outcomes[name] = None
        except NotSentError as exc:
            if isinstance(exc, NoBlockError):
                self._edit(lambda kept: forget_assumed(kept, name))
            self._outcomes[name] = exc
        except Exception as exc:  # noqa: BLE001  (a run must not depend on its alerts)
            self._outcomes[name] = NotSentError(one_line(f"{type(exc).__name__}: {exc}"))

    def _slack(self, name: str, destination: Destination, address: dict[str, Any]) -> None:
        from flows.alerts.send.slack import digest_message, slack_message

        now = datetime.now(UTC)
        entries = self._store.read()
        notice = self._notice(entries, name, now)
        if not notice.is_empty:
            post(address["url"], slack_message(notice, self._routes.mention, now), self._deadline)
            self._edit(lambda kept: mark_told(kept, name, notice, now))
        if digest := self._digest(entries, name, now):
            post(address["url"], digest_message(self._target, digest), self._deadline)
            self._edit(lambda kept: kept.digests.update({name: now.isoformat(timespec="seconds")}))

    def _pagerduty(self, name: str, destination: Destination, address: dict[str, Any]) -> None:
        from flows.alerts.send.pagerduty import pagerduty_events

        now = datetime.now(UTC)
        entries = self._store.read()
        notice = self._notice(entries, name, now)
        still_open = [entry for entry in entries.incidents.values() if entry.closed_at is None]
        sent: dict[str, str] = {}
        try:
            for event in pagerduty_events(notice, name, still_open):
                post_event(event, destination, address, self._deadline)
                sent |= dict.fromkeys(event.incident_keys, event.dedup_key)
        finally:
            if sent:
                self._edit(lambda kept: mark_told(kept, name, notice.only(sent), now, dedup_key=sent))

    def _notice(self, entries: Entries, name: str, now: datetime) -> Notice:
        def is_routed(incident: Incident) -> bool:
            return name in self._routes.destinations_of(incident)

        remind_after = timedelta(hours=self._routes.remind_after_hours)
        return notice_for(entries, self._target, name, is_routed, now, remind_after)

    def _digest(self, entries: Entries, name: str, now: datetime) -> list[OpenIncident]:
        """Return the warnings that were sent to this destination, when it is time to list them again."""
        warned = [
            entry
            for entry in entries.incidents.values()
            if entry.closed_at is None and entry.incident.severity == "warning" and name in entry.told
        ]
        if not warned:
            return []
        last = entries.digests.get(name) or min(str(entry.told[name]["at"]) for entry in warned)
        is_due = now - datetime.fromisoformat(last) >= timedelta(hours=self._routes.digest_every_hours)
        return warned if is_due else []

    def _owes_guesses_only(self, entries: Entries, name: str) -> bool:
        notice = self._notice(entries, name, datetime.now(UTC))
        return not notice.open and all(is_assumed(entry, name) for entry in notice.recovered)

    def _is_owed(self, entries: Entries, name: str) -> bool:
        now = datetime.now(UTC)
        is_slack = self._routes.destinations[name].slack is not None
        return not self._notice(entries, name, now).is_empty or (is_slack and bool(self._digest(entries, name, now)))

    def _edit(self, change: Callable[[Entries], None]) -> None:
        with self._store.edit() as entries:
            change(entries)
