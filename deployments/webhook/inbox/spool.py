"""Store deliveries on disk until they are processed; they survive a killed process and a power cut.

A SQLite file in WAL mode whose every commit is on the disk before it returns (`synchronous=full`), so an accepted
delivery is there after kill -9 and after a power cut. Several receivers may share one file: processing an event is
idempotent.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import uuid4

from deployments.webhook.inbox.delivery import Delivery
from infrastructure.errors import ConfigError
from infrastructure.private_files import opener, private_folder, shut

_SCHEMA_VERSION = 1
_SCHEMA = f"""
create table event (
    id integer primary key,
    connection_id text not null,
    job_id integer,
    succeeded integer not null,
    queued integer not null,
    name text not null,
    reason text not null,
    digest text not null,
    received_at real not null,
    -- start: wait for a run. confirm: ask Airbyte first. done: nothing is left to do.
    state text not null check (state in ('start', 'confirm', 'done')),
    due_at real not null,
    attempts integer not null default 0,
    batch text,
    outcome text,
    flow_run_id text,
    done_at real
);
create unique index event_job on event (connection_id, job_id, succeeded) where job_id is not null;
create index event_open on event (due_at) where state <> 'done';
create index event_digest on event (connection_id, digest, received_at) where job_id is null;
create table kept (name text primary key, value text not null);
pragma user_version = {_SCHEMA_VERSION};
"""
# Without a job id, the same body within this time counts as a repeat.
_SAME_WORDS_SECONDS = 600.0
_BUSY_SECONDS = 10.0
# The outcome of a failure that Airbyte did not confirm because the sync had not ended: it may still fail.
NOT_ENDED = "not ended"

Stored = Literal["accepted", "duplicate"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SpooledDelivery:
    """One delivery in the spool; times are seconds since 1970."""

    id: int
    delivery: Delivery
    received_at: float
    state: str
    due_at: float
    attempts: int
    batch: str | None
    outcome: str | None
    flow_run_id: str | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is left to do."""

    waiting: int
    oldest_received_at: float | None
    next_due_at: float | None


class Spool:
    """Store deliveries and their outcomes; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Open the file, or create it.

        Raises:
            ConfigError: it can't be written, or is not a spool of this version.
        """
        self._lock = threading.Lock()
        try:
            private_folder(path.parent)
            is_new = not path.exists()
            # SQLite creates its other files with the same mode.
            os.close(opener(str(path), os.O_RDWR | os.O_CREAT))
            for file in (path, *(path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))):
                if file.exists():
                    shut(file)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("pragma journal_mode=wal")
            self._connection.execute("pragma synchronous=full")
            self._prepare()
            if is_new:
                _sync_folder(path.parent)
        except (OSError, sqlite3.Error) as exc:
            raise ConfigError(
                f"The spool {path} can't be used: {exc}. Name a file in a writable folder on a disk of "
                "this machine (not a network folder), with TRIBUTARY_WEBHOOK_SPOOL."
            ) from exc

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add(self, deliveries: Sequence[Delivery], now: float, window_seconds: float = 0.0) -> list[Stored]:
        """Store deliveries in one transaction that is on the disk when this returns.

        Args:
            window_seconds: how long a success waits for others, to share a run with them.
        """
        return self._write(lambda: [self._add(delivery, now, window_seconds) for delivery in deliveries])

    def take(self, now: float, as_union: bool) -> list[list[SpooledDelivery]]:
        """Return the events to start now, each list as one run.

        Which events form one run is stored first: after a crash they are still one run, under the same key.

        Args:
            as_union: all waiting events become one run as soon as the first of them is due; otherwise each is one.
        """
        return self._write(lambda: self._take(now, as_union))

    def to_confirm(self, now: float) -> list[SpooledDelivery]:
        """Return the events that Airbyte has to confirm now."""
        return self._read("state = 'confirm' and due_at <= ? order by id", (now,))

    def finish(
        self, events: Iterable[SpooledDelivery], outcome: str, now: float, flow_run_id: str | None = None
    ) -> None:
        """End events with an outcome."""
        rows = [(outcome, flow_run_id, now, event.id) for event in events]
        statement = "update event set state = 'done', outcome = ?, flow_run_id = ?, done_at = ? where id = ?"
        self._write(lambda: self._connection.executemany(statement, rows))

    def resolve(self, event: SpooledDelivery, delivery: Delivery, outcome: str, now: float) -> None:
        """End an event and store the delivery that it turned out to be, in one transaction."""

        def both() -> None:
            self._add(delivery, now, 0.0)
            self._connection.execute(
                "update event set state = 'done', outcome = ?, done_at = ? where id = ?", (outcome, now, event.id)
            )

        self._write(both)

    def postpone(self, events: Iterable[SpooledDelivery], due_at: float) -> None:
        """Make events due later."""
        rows = [(due_at, event.id) for event in events]
        statement = "update event set due_at = ?, attempts = attempts + 1 where id = ?"
        self._write(lambda: self._connection.executemany(statement, rows))

    def had_failed(self, connection_id: str) -> bool:
        """Return whether the last alert about a connection says that its sync failed."""
        found = self._read(
            "connection_id = ? and state = 'done' and outcome in ('alerted', 'started') order by done_at desc, id desc",
            (connection_id,),
            limit=1,
        )
        return bool(found) and found[0].outcome == "alerted"

    def backlog(self) -> Backlog:
        """Return how much is left to do, and since when."""
        with self._lock:
            row = self._connection.execute(
                "select count(*), min(received_at), min(due_at) from event where state <> 'done'"
            ).fetchone()
        return Backlog(*row)

    def events(self, only_open: bool = False, limit: int = 50) -> list[SpooledDelivery]:
        """Return the newest events, the newest last."""
        return self._read("state <> 'done' or not ? order by id desc", (only_open,), limit)[::-1]

    def prune(self, before: float) -> int:
        """Delete events that ended before a moment; Prefect's idempotency keys still prevent a second run."""
        statement = "delete from event where state = 'done' and done_at < ?"
        return self._write(lambda: self._connection.execute(statement, (before,)).rowcount)

    def keep(self, name: str, value: str) -> None:
        """Store a value that a later process needs."""
        statement = "insert into kept values (?, ?) on conflict do update set value = excluded.value"
        self._write(lambda: self._connection.execute(statement, (name, value)))

    def kept(self, name: str) -> str | None:
        """Return a value that an earlier process stored."""
        with self._lock:
            row = self._connection.execute("select value from kept where name = ?", (name,)).fetchone()
        return row[0] if row else None

    def _prepare(self) -> None:
        def make() -> None:
            version = self._connection.execute("pragma user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
            elif version != _SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"it has version {version}, and this program writes {_SCHEMA_VERSION}")

        self._write(make)

    def _add(self, delivery: Delivery, now: float, window_seconds: float) -> Stored:
        is_start = delivery.succeeded and delivery.job_id is not None
        if delivery.job_id is None and self._said_already(delivery, now):
            return "duplicate"
        # A failure that was not confirmed because the sync had not ended is checked again when it is delivered again.
        cursor = self._connection.execute(
            "insert into event (connection_id, job_id, succeeded, queued, name, reason, digest, received_at, state,"
            " due_at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " on conflict (connection_id, job_id, succeeded) where job_id is not null do update"
            " set state = excluded.state, due_at = excluded.due_at, received_at = excluded.received_at,"
            " queued = excluded.queued, reason = excluded.reason, attempts = 0, outcome = null, done_at = null"
            f" where outcome = '{NOT_ENDED}'",
            (
                delivery.connection_id,
                delivery.job_id,
                delivery.succeeded,
                delivery.queued,
                delivery.name,
                delivery.reason,
                delivery.digest,
                now,
                "start" if is_start else "confirm",
                now + window_seconds if is_start else now,
            ),
        )
        return "accepted" if cursor.rowcount else "duplicate"

    def _said_already(self, delivery: Delivery, now: float) -> bool:
        found = self._connection.execute(
            "select 1 from event where job_id is null and connection_id = ? and digest = ? and received_at > ?",
            (delivery.connection_id, delivery.digest, now - _SAME_WORDS_SECONDS),
        )
        return found.fetchone() is not None

    def _take(self, now: float, as_union: bool) -> list[list[SpooledDelivery]]:
        due = "state = 'start' and batch is null and due_at <= ?"
        if not as_union:
            self._connection.execute(f"update event set batch = 'e' || id where {due}", (now,))
        elif self._connection.execute(f"select 1 from event where {due} limit 1", (now,)).fetchone():
            self._connection.execute(
                "update event set batch = ?, due_at = ? where state = 'start' and batch is null", (uuid4().hex, now)
            )
        batches: dict[str, list[SpooledDelivery]] = {}
        found = self._rows("state = 'start' and batch is not null and due_at <= ? order by id", (now,))
        for event in found:
            batches.setdefault(str(event.batch), []).append(event)
        return list(batches.values())

    def _read(self, condition: str, values: tuple[Any, ...], limit: int = -1) -> list[SpooledDelivery]:
        with self._lock:
            return self._rows(f"{condition} limit {limit:d}", values)

    def _rows(self, condition: str, values: tuple[Any, ...]) -> list[SpooledDelivery]:
        rows = self._connection.execute(
            "select id, connection_id, job_id, succeeded, queued, name, reason, digest, received_at, state, due_at,"
            f" attempts, batch, outcome, flow_run_id from event where {condition}",
            values,
        ).fetchall()
        return [_event(row) for row in rows]

    def _write(self, do: Callable[[], Result]) -> Result:
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                result = do()
                self._connection.execute("commit")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("rollback")
                raise
            return result


def _event(row: tuple[Any, ...]) -> SpooledDelivery:
    connection_id, job_id, succeeded, queued, name, reason, digest = row[1:8]
    delivery = Delivery(connection_id, job_id, bool(succeeded), bool(queued), name, reason, digest)
    return SpooledDelivery(row[0], delivery, *row[8:])


def _sync_folder(folder: Path) -> None:
    """Sync the folder of a new file, so that its name survives a power cut; SQLite syncs its content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
