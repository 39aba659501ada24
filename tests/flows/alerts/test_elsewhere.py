"""Incidents that several machines share, from a store in a bucket to what real receivers took."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from flows.alerts import Incident, close_incident, open_incident
from flows.alerts.escalation import acknowledge
from flows.alerts.incident_store import Entries, mark_told, notice_for, record, store_of
from flows.alerts.merged_incidents import merged
from flows.engine.context.shared.bucket import Bucket
from infrastructure.errors import UpstreamUnavailable
from tests.support.alert_receivers import Receiver, WriteRoutes, headers
from tests.support.stores import Machine

SYNC = "airbyte sync/orders"
AT = datetime(2026, 11, 28, 3, 15, tzinfo=UTC)
LATER = AT + timedelta(minutes=5)


@pytest.fixture
def machines(bucket: str, fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Machine]:
    other = Machine(f"{bucket}/{fresh}", tmp_path / "other", monkeypatch)
    return Machine(f"{bucket}/{fresh}", tmp_path / "one", monkeypatch), other


def sync_failed(target: str, text: str = "timeout") -> Incident:
    return Incident(SYNC, "error", "The sync of orders failed", text, target)


def test_an_incident_is_told_once_and_resolved_by_another_machine(
    routes: WriteRoutes, team: Receiver, fresh: str, machines: tuple[Machine, Machine]
) -> None:
    one, other = machines
    open_incident(sync_failed(fresh))
    one.lose()

    other.use()
    open_incident(sync_failed(fresh))
    assert acknowledge([SYNC], fresh, "Ada") == [SYNC]
    one.use()
    close_incident(SYNC, fresh)
    other.use()
    close_incident(SYNC, fresh)

    assert headers(team) == [
        f"🔴 {fresh}: The sync of orders failed",
        f"🟢 {fresh}: recovered: The sync of orders failed",
    ]


def test_an_incident_of_a_store_that_is_away_is_told_and_kept_for_the_next_report(
    routes: WriteRoutes,
    team: Receiver,
    fresh: str,
    machines: tuple[Machine, Machine],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, other = machines

    def is_away(*_: object, **__: object) -> None:
        raise UpstreamUnavailable("The state can't be reached now.")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "read_tagged", is_away)
        patch.setattr(Bucket, "create", is_away)
        open_incident(sync_failed(fresh))
    assert "are kept on this machine, whose next report sends them" in capsys.readouterr().out
    open_incident(Incident("dbt/model.a", "error", "a failed", "no column", fresh))

    other.use()
    assert store_of(fresh, os.environ).read().incidents.keys() == {SYNC, "dbt/model.a"}
    close_incident(SYNC, fresh)
    assert headers(team) == [
        f"🔴 {fresh}: The sync of orders failed",
        f"🔴 {fresh}: a failed",
        f"🟢 {fresh}: recovered: The sync of orders failed",
    ]


def incident(key: str, text: str = "3 rows") -> Incident:
    return Incident(key, "error", f"{key} failed", text, "prod")


def with_open(*keys: str) -> Entries:
    entries = Entries()
    record(entries, [incident(key) for key in keys], [], AT)
    return entries


def copied(entries: Entries) -> Entries:
    return Entries(dict(entries.incidents), dict(entries.digests), dict(entries.settled))


def merge(base: Entries | None, ours: Entries, theirs: Entries) -> dict[str, dict[str, object]]:
    return orjson.loads(merged(orjson.dumps(base) if base else None, orjson.dumps(ours), orjson.dumps(theirs)))


def tell(entries: Entries, destination: str, at: datetime) -> None:
    notice = notice_for(entries, "prod", destination, lambda _: True, at, timedelta(hours=24))
    mark_told(entries, destination, notice, at)


def test_what_each_has_opened_is_open() -> None:
    both = merge(None, with_open("model.a"), with_open("model.b"))

    assert both["incidents"].keys() == {"model.a", "model.b"}
    assert both["format"] == 1


def test_what_each_destination_was_told_is_kept() -> None:
    base = with_open("model.a")
    ours, theirs = copied(base), copied(base)
    tell(ours, "slack", LATER)
    tell(theirs, "pager", LATER)

    told = merge(base, ours, theirs)["incidents"]["model.a"]["told"]

    assert told.keys() == {"slack", "pager"}


def test_an_acknowledgement_stays_while_another_run_sees_it_again() -> None:
    base = with_open("model.a")
    ours, theirs = copied(base), copied(base)
    known = ours.incidents["model.a"]
    ours.incidents["model.a"] = replace(known, acknowledged_at=AT.isoformat(), acknowledged_by="Ada")
    record(theirs, [incident("model.a", "9 rows")], [], LATER)

    entry = merge(base, ours, theirs)["incidents"]["model.a"]

    assert entry["acknowledged_by"] == "Ada"
    assert entry["incident"]["text"] == "9 rows"


def test_what_is_told_as_over_is_gone_and_what_came_back_meanwhile_is_not() -> None:
    base = with_open("model.a", "model.b")
    ours, theirs = copied(base), copied(base)
    del ours.incidents["model.a"], ours.incidents["model.b"]
    record(theirs, [incident("model.b")], [], LATER)

    assert merge(base, ours, theirs)["incidents"].keys() == {"model.b"}


def test_another_version_is_left_as_it_is() -> None:
    theirs = b'{"format": 2, "open": []}'

    assert merged(None, orjson.dumps(with_open("model.a")), theirs) == theirs
