"""Writing down what is wrong, and telling everybody who is to hear of it: the one place with effects.

Nothing here raises, and nothing takes longer than `deadline_seconds` of routes.yml: a run must not hang on who hears
of it. What could not be told stays owed in the book, and is told with the next report of that target.
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
    book_of,
    file_lock,
    forget_assumed,
    is_assumed,
    is_settled,
    mark_told,
    notice_for,
    record,
)
from flows.alerts.send.delivery import NotSentError, SendDeadline, post
from flows.engine.context.reporting import current_reporter
from infrastructure.errors import ConfigError
from infrastructure.plain_text import one_line

if TYPE_CHECKING:
    from flows.alerts.routes import Destination, Routes


# Each is a request, PagerDuty takes some hundred a minute, and a run is held up by them. The others are next.
_MOST_ASSUMED = 50


@dataclass(frozen=True)
class Unsent:
    """A destination that could not be told, and why."""

    destination: str
    reason: str

    def __str__(self) -> str:
        return f"{self.destination}: {self.reason}"


def open_incident(incident: Incident) -> None:
    """Say that something is wrong; whoever has been told already hears of it only when it changes.

    In a flow that tells how it ended, it is told at the end of the run, with everything else.
    """
    _report(incident.target, opened=[incident])


def close_incident(key: str, target: str) -> None:
    """Say that something is no longer wrong; costs next to nothing where it was not."""
    _report(target, closed=[key])


def _report(target: str, opened: Sequence[Incident] = (), closed: Sequence[str] = ()) -> None:
    from flows.alerts.flow_runs import is_told_at_the_end

    write_down(target, opened, closed)
    if not is_told_at_the_end(target):
        deliver(target)


def tell(target: str, opened: Sequence[Incident] = (), closed: Sequence[str] = ()) -> tuple[Unsent, ...]:
    """Write down what is wrong and what no longer is, and tell whoever is to hear of it.

    Returns:
        What could not be told; it is told with the next report of this target.
    """
    write_down(target, opened, closed)
    return deliver(target)


def write_down(
    target: str, opened: Sequence[Incident] = (), closed: Sequence[str] = (), passed: Iterable[Incident] = ()
) -> None:
    """Write down what is wrong and what no longer is, without telling anybody yet.

    Args:
        passed: what is well, as the incident that it would be, worst first. PagerDuty is to hear that it is over also
            where this book knows nothing of it: a run with another state folder may have opened it.
    """
    book = book_of(target, os.environ)
    now = datetime.now(UTC)
    try:
        known = book.read()
        guessed = (Incident(key, _severity_of(key), key, target=target) for key in closed)
        assumed = _assumed(known, chain(guessed, passed), {incident.key for incident in opened}, now)
        if not opened and not assumed and not known.incidents.keys() & set(closed):
            return
        with book.edit() as entries:
            record(entries, opened, closed, now)
            assume_told(entries, assumed, now)
    except Exception as exc:  # noqa: BLE001  (a run must not hang on who hears of it)
        said = one_line(str(exc))
        current_reporter().note(f"The incidents of target {target} could not be written to {book.path}: {said}")


def _severity_of(key: str) -> Severity:
    """Return how bad an incident would be at most of which the key alone is known."""
    # How flows and commands ended is never critical by itself.
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
            # It is said where something is to be told; what is wrong is written down in any case.
            return []
        if pagers := routes.pagers(routes.destinations_of(incident)):
            found[incident.key] = (incident, pagers)
        if len(found) == _MOST_ASSUMED:
            break
    return list(found.values())


def deliver(target: str) -> tuple[Unsent, ...]:
    """Tell everybody what they have not been told yet of a target, and note what could not be told."""
    book = book_of(target, os.environ)
    if not book.exists:
        return ()
    from flows.alerts.routes import load_routes

    try:
        if not book.read().incidents:
            return ()
        routes = load_routes()
        unsent = _Delivery(target, book, routes).run()
    except Exception as exc:  # noqa: BLE001  (a run must not hang on who hears of it)
        current_reporter().note(f"Nobody was told of what is wrong on target {target}: {exc}")
        return (Unsent("all destinations", one_line(str(exc))),)
    for entry in unsent:
        current_reporter().note(f"An alert of target {target} was not sent to {entry}. It is owed, and sent next time.")
    return unsent


class _Delivery:
    """One pass over all destinations, each in a thread of its own, so that a slow one holds up no other."""

    def __init__(self, target: str, book: IncidentStore, routes: Routes) -> None:
        self._target = target
        self._book = book
        self._routes = routes
        self._deadline = SendDeadline.after(routes.deadline_seconds)
        self._outcomes: dict[str, NotSentError | None] = {}

    def run(self) -> tuple[Unsent, ...]:
        entries = self._book.read()
        names = [name for name in self._routes.destinations if self._is_owed(entries, name)]
        # That somebody may have to be told of an end is nothing to worry anybody with when it fails.
        quiet = {name for name in names if self._owes_guesses_only(entries, name)}
        threads = [self._started(name) for name in names]
        for thread in threads:
            # A little more than the deadline: what is sent at the last moment is still written down.
            thread.join(self._deadline.left_seconds + 0.5)
        late = NotSentError(f"it was not done within {self._routes.deadline_seconds:.0f} s")
        failed = {name: error for name in names if name not in quiet and (error := self._outcomes.get(name, late))}
        # Where no destination is set up at all, nobody has asked for alerts.
        if len(failed) == len(names) - len(quiet) and all(isinstance(error, NoBlockError) for error in failed.values()):
            return ()
        return tuple(Unsent(name, str(error)) for name, error in failed.items())

    def _started(self, name: str) -> threading.Thread:
        # Prefect's settings of the moment, such as a temporary server's address, are context variables.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._tell, name), name=f"alerts-{name}", daemon=True)
        thread.start()
        return thread

    def _tell(self, name: str) -> None:
        destination = self._routes.destinations[name]
        try:
            lock = self._book.path.with_suffix(f".{name}.lock")
            # Two runs that tell the same destination at once would both tell the same.
            with file_lock(lock, self._deadline.left_seconds):
                send = self._slack if destination.slack else self._pagerduty
                send(name, destination, read_address(destination))
            self._outcomes[name] = None
        except NotSentError as exc:
            if isinstance(exc, NoBlockError):
                self._written(lambda kept: forget_assumed(kept, name))
            self._outcomes[name] = exc
        except Exception as exc:  # noqa: BLE001  (whatever it is, a run must not hang on it)
            self._outcomes[name] = NotSentError(one_line(f"{type(exc).__name__}: {exc}"))

    def _slack(self, name: str, destination: Destination, address: dict[str, Any]) -> None:
        from flows.alerts.send.slack import digest_message, slack_message

        now = datetime.now(UTC)
        entries = self._book.read()
        notice = self._notice(entries, name, now)
        if not notice.is_empty:
            post(address["url"], slack_message(notice, self._routes.mention, now), self._deadline)
            self._written(lambda kept: mark_told(kept, name, notice, now))
        if digest := self._digest(entries, name, now):
            post(address["url"], digest_message(self._target, digest), self._deadline)
            self._written(lambda kept: kept.digests.update({name: now.isoformat(timespec="seconds")}))

    def _pagerduty(self, name: str, destination: Destination, address: dict[str, Any]) -> None:
        from flows.alerts.send.pagerduty import pagerduty_events

        now = datetime.now(UTC)
        entries = self._book.read()
        notice = self._notice(entries, name, now)
        still_open = [entry for entry in entries.incidents.values() if entry.closed_at is None]
        sent: dict[str, str] = {}
        try:
            for event in pagerduty_events(notice, name, still_open):
                post_event(event, destination, address, self._deadline)
                sent |= dict.fromkeys(event.incident_keys, event.dedup_key)
        finally:
            if sent:
                self._written(lambda kept: mark_told(kept, name, notice.only(sent), now, dedup_key=sent))

    def _notice(self, entries: Entries, name: str, now: datetime) -> Notice:
        def is_routed(incident: Incident) -> bool:
            return name in self._routes.destinations_of(incident)

        remind_after = timedelta(hours=self._routes.remind_after_hours)
        return notice_for(entries, self._target, name, is_routed, now, remind_after)

    def _digest(self, entries: Entries, name: str, now: datetime) -> list[OpenIncident]:
        """Return the warnings that this destination has heard of, when it is time to list them again."""
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

    def _written(self, change: Callable[[Entries], None]) -> None:
        with self._book.edit() as entries:
            change(entries)
