"""The open incidents of one target, and what each destination was last told about them: one file per target.

Where machines share their state, they share the file: what several change at once is merged, by incident.

What to send follows from the file alone. So when a run dies before it sends, or a destination does not answer, nothing
is lost: the next report of that target sends what is owed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import orjson

from flows.alerts.incident import Incident, OpenIncident, incident_of
from flows.alerts.merged_incidents import merged
from flows.engine.context.reporting import current_reporter
from flows.engine.context.shared.files import SharedFile, writing_copy
from flows.engine.context.shared.state import why
from flows.engine.context.state import shared_file, state_root
from flows.engine.target.file_lock import locked_file
from infrastructure.errors import TributaryError
from infrastructure.private_files import private_folder, write_whole

# The version of the file; another one is not read.
FORMAT = 1
_LOCK_SECONDS = 5.0
_POLL_SECONDS = 0.02
# Longer texts are cut, as the run's log has them whole; the file is rewritten at every change.
_TEXT_LIMIT = 6000
# From so many incidents on, each keeps less of its text, so that 10,000 of them stay a file of some megabytes.
_MANY, _TEXT_LIMIT_OF_MANY = 200, 400
# So long after the end of an alert that this store did not know, another machine may have opened it again.
_SETTLED_FOR = timedelta(hours=24)
# What was said of a store that is away, once in a process.
_said: set[tuple[Path, str]] = set()


@dataclass(frozen=True)
class Entries:
    """What the file of a target holds.

    Attributes:
        incidents: by key, in the order in which they were opened.
        digests: when each destination last had the digest, ISO 8601.
        settled: when the end of incidents that this store did not know was last sent, ISO 8601, by key.
    """

    incidents: dict[str, OpenIncident] = field(default_factory=dict[str, OpenIncident])
    digests: dict[str, str] = field(default_factory=dict[str, str])
    settled: dict[str, str] = field(default_factory=dict[str, str])
    format: int = FORMAT


@dataclass(frozen=True)
class Notice:
    """Everything that one message to a destination says about a target.

    Attributes:
        new, changed: sent now.
        still: sent long ago; sent again as a reminder.
        recovered: sent as open before, and over now.
        quiet: open and sent before; only counted.
    """

    target: str
    new: tuple[OpenIncident, ...] = ()
    changed: tuple[OpenIncident, ...] = ()
    still: tuple[OpenIncident, ...] = ()
    recovered: tuple[OpenIncident, ...] = ()
    quiet: tuple[OpenIncident, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to send."""
        return not (self.new or self.changed or self.still or self.recovered)

    @property
    def open(self) -> tuple[OpenIncident, ...]:
        """Return what the message lists as open."""
        return (*self.new, *self.changed, *self.still)

    def only(self, keys: Iterable[str]) -> Notice:
        """Return the part about these incidents."""
        wanted = set(keys)

        def kept(entries: tuple[OpenIncident, ...]) -> tuple[OpenIncident, ...]:
            return tuple(entry for entry in entries if entry.incident.key in wanted)

        return Notice(self.target, kept(self.new), kept(self.changed), kept(self.still), kept(self.recovered))


class IncidentStore:
    """The file of one target's incidents; a writer holds its lock only while it edits.

    Args:
        shared: the file as machines share it; None where state is a folder.
    """

    def __init__(self, path: Path, shared: SharedFile | None = None) -> None:
        self.path = path
        self._shared = shared

    @property
    def exists(self) -> bool:
        """Return whether the file exists."""
        self._fetch()
        return self.path.exists()

    def read(self) -> Entries:
        """Return what is in the file; a damaged file, or one of another version, is renamed and counts as empty."""
        self._fetch()
        return self._read()

    @contextmanager
    def edit(self) -> Iterator[Entries]:
        """Change what is in the file while holding its lock; the change is written whole or not at all.

        Raises:
            OSError: the folder can't be written, or another process held the lock for too long.
        """
        private_folder(self.path.parent)
        with file_lock(self.path.with_suffix(".lock"), _LOCK_SECONDS):
            with self._away("are those that this machine knows"):
                if self._shared:
                    self._shared.fetch()
            entries = self._read()
            yield entries
            # orjson takes dataclasses as they are, which is many times faster for 10,000 of them than their `asdict`.
            write_whole(self.path, orjson.dumps(entries))
            with self._away("are kept on this machine, whose next report sends them"):
                if self._shared:
                    self._shared.send()

    def _read(self) -> Entries:
        try:
            document = cast(dict[str, Any], orjson.loads(self.path.read_bytes()))
            if document.get("format", FORMAT) != FORMAT:
                raise ValueError(f"it is of format {document['format']}, and this version reads {FORMAT}")
            incidents = {key: _open_incident(entry) for key, entry in document["incidents"].items()}
            return Entries(incidents, dict(document["digests"]), dict(document.get("settled", {})))
        except FileNotFoundError:
            return Entries()
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
            aside = self.path.with_suffix(".unreadable")
            self.path.replace(aside)
            current_reporter().note(
                f"{self.path} can't be read ({exc}): incidents begin anew, and it is kept as {aside}."
            )
            return Entries()

    def _fetch(self) -> None:
        if self._shared is None:
            return
        away = self._away("are those that this machine knows")
        with away, writing_copy(self.path.parent), suppress(TimeoutError):
            private_folder(self.path.parent)
            with file_lock(self.path.with_suffix(".lock"), _LOCK_SECONDS):
                self._shared.fetch()

    @contextmanager
    def _away(self, what: str) -> Iterator[None]:
        """Go on with what this machine has where the store of shared state is away, and say so once."""
        try:
            yield
        except TributaryError as exc:
            said = f"The incidents of target {self.path.stem} {what}: {why(exc)}."
            if (self.path, what) not in _said:
                _said.add((self.path, what))
                current_reporter().note(said)


def store_of(target: str, environ: Mapping[str, str]) -> IncidentStore:
    """Return the incident store of a target, in the state folder or shared by machines."""
    path = state_root(environ) / "alerts" / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', target) or '_'}.json"
    return IncidentStore(path, shared_file(path, environ, merged))


@contextmanager
def file_lock(path: Path, timeout_seconds: float) -> Iterator[None]:
    """Hold a lock file for the time of the block.

    Raises:
        TimeoutError: another process held it for all that time.
    """
    deadline = time.monotonic() + timeout_seconds
    while (file := locked_file(path)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} was locked by another process for {timeout_seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        os.close(file)


def record(entries: Entries, opened: Iterable[Incident], closed: Iterable[str], now: datetime) -> None:
    """Record which incidents are open now and which are over."""
    at = now.isoformat(timespec="seconds")
    found = list(opened)
    limit = _TEXT_LIMIT if len(found) < _MANY else _TEXT_LIMIT_OF_MANY
    for incident in found:
        kept = replace(incident, text=_shortened(incident.text, limit))
        known = entries.incidents.get(incident.key)
        if known is None:
            entries.incidents[incident.key] = OpenIncident(kept, opened_at=at, seen_at=at)
        else:
            told = {name: _lowered(entry, kept.count) for name, entry in known.told.items()}
            if known.closed_at is not None:
                # It was over: the person who acknowledged it then does not know that it is back.
                known = replace(known, clock_at=None, acknowledged_at=None, acknowledged_by=None)
            entries.incidents[incident.key] = replace(known, incident=kept, seen_at=at, closed_at=None, told=told)
    for key in closed:
        known = entries.incidents.get(key)
        if known is None:
            continue
        if known.told:
            entries.incidents[key] = replace(known, closed_at=at)
        else:
            # It was never sent, so its end is not sent either.
            del entries.incidents[key]


def is_settled(entries: Entries, key: str, now: datetime) -> bool:
    """Return whether this store knows an incident, or knows that no destination has an open alert of it."""
    at = entries.settled.get(key)
    return key in entries.incidents or (at is not None and now - datetime.fromisoformat(at) < _SETTLED_FOR)


def assume_told(entries: Entries, passed: Iterable[tuple[Incident, Sequence[str]]], now: datetime) -> None:
    """Owe destinations the end of incidents that only a run with another state folder may have sent.

    Args:
        passed: incidents that are over now, with the destinations to which they would have been sent.
    """
    at = now.isoformat(timespec="seconds")
    for incident, destinations in passed:
        if incident.key in entries.incidents:
            # Another process has recorded it meanwhile.
            continue
        told = {name: {"at": at, "assumed": True} for name in destinations}
        entries.incidents[incident.key] = OpenIncident(incident, at, at, closed_at=at, told=told)
        entries.settled[incident.key] = at


def is_assumed(entry: OpenIncident, destination: str) -> bool:
    """Return whether it is only assumed that a destination was told about an incident."""
    return bool(entry.told.get(destination, {}).get("assumed"))


def forget_assumed(entries: Entries, destination: str) -> None:
    """Drop the assumed incidents that are owed to a destination."""
    for key, entry in list(entries.incidents.items()):
        if entry.closed_at is not None and is_assumed(entry, destination):
            left = {name: told for name, told in entry.told.items() if name != destination}
            if left:
                entries.incidents[key] = replace(entry, told=left)
            else:
                del entries.incidents[key]


def notice_for(
    entries: Entries,
    target: str,
    destination: str,
    is_routed: Callable[[Incident], bool],
    now: datetime,
    remind_after: timedelta,
) -> Notice:
    """Return what to send to a destination."""
    found: dict[str, list[OpenIncident]] = {"new": [], "changed": [], "still": [], "recovered": [], "quiet": []}
    for entry in entries.incidents.values():
        told = entry.told.get(destination)
        if entry.closed_at is not None:
            if told is not None:
                found["recovered"].append(entry)
        elif told is not None:
            found[_state_of(entry, told, now, remind_after)].append(entry)
        elif is_routed(entry.incident):
            found["new"].append(entry)
    return Notice(target, **{name: tuple(listed) for name, listed in found.items()})


def mark_told(entries: Entries, destination: str, notice: Notice, now: datetime, **more: Mapping[str, str]) -> None:
    """Record that a notice was sent to a destination.

    Args:
        more: further facts to keep by incident key, such as PagerDuty's dedup keys.
    """
    at = now.isoformat(timespec="seconds")
    for entry in notice.open:
        known = entries.incidents.get(entry.incident.key)
        if known is None:
            continue
        told: dict[str, Any] = {"fingerprint": entry.incident.fingerprint, "count": entry.incident.count, "at": at}
        told |= {name: values[entry.incident.key] for name, values in more.items() if entry.incident.key in values}
        entries.incidents[entry.incident.key] = replace(known, told={**known.told, destination: told})
    for entry in notice.recovered:
        known = entries.incidents.get(entry.incident.key)
        if known is None:
            continue
        left = {name: told for name, told in known.told.items() if name != destination}
        if known.closed_at is not None and not left:
            del entries.incidents[entry.incident.key]
        else:
            entries.incidents[entry.incident.key] = replace(known, told=left)


def _state_of(entry: OpenIncident, told: Mapping[str, Any], now: datetime, remind_after: timedelta) -> str:
    incident = entry.incident
    is_warning = incident.severity in ("warning", "info")
    before = told.get("count")
    # A warning is sent when it grows at all; a failure, when its count has doubled.
    grown = before is not None and (before + 1 if is_warning else max(2 * before, 2))
    if grown and incident.count is not None and incident.count >= grown:
        return "changed"
    if told.get("fingerprint") != incident.fingerprint:
        return "changed"
    # Warnings that stay as they are go into the digest.
    if not is_warning and now - datetime.fromisoformat(str(told["at"])) >= remind_after:
        return "still"
    return "quiet"


def _lowered(told: Mapping[str, Any], count: int | None) -> Mapping[str, Any]:
    """Return what was told with a count that has gone down, from which growth is measured then."""
    before = told.get("count")
    if count is None or before is None or count >= before:
        return told
    return {**told, "count": count}


def _shortened(text: str, limit: int) -> str:
    # A warehouse's message can contain an unpaired surrogate, which JSON can't hold.
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _open_incident(document: Mapping[str, Any]) -> OpenIncident:
    return OpenIncident(
        incident=incident_of(document["incident"]),
        opened_at=document["opened_at"],
        seen_at=document["seen_at"],
        closed_at=document["closed_at"],
        told=document["told"],
        # What an earlier version wrote has none of these.
        clock_at=document.get("clock_at"),
        acknowledged_at=document.get("acknowledged_at"),
        acknowledged_by=document.get("acknowledged_by"),
    )
