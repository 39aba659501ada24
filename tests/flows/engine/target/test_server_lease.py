"""One writer per target between machines: two state folders stand for two of them."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from flows.engine.context.reporting import reporting_to
from flows.engine.process.process import STOP_SECONDS
from flows.engine.target import server_lease as lease
from flows.engine.target.file_lock import calling_when_lost, one_writer
from flows.engine.target.server_lease import Lease, acquire, server_slot
from flows.warehouses.door import open_warehouse
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.profiles import Profile
from infrastructure.registration import limit_name
from tests.support.lock_holders import Listener, holder, lease_of, leases, run_out, take_in_a_thread
from tests.support.notes import Notes
from tests.support.processes import wait_until
from tests.support.road import Road, only_way


@pytest.fixture
def target(prefect_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return a target with a limit on the server; this process is a machine of its own."""
    from infrastructure.server.client import connect

    name = f"t{uuid4().hex[:8]}"
    with connect() as server:
        server.save_limit(limit_name(name), 1)
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "ours"))
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    return name


@contextmanager
def on_another_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TRIBUTARY_STATE", str(folder))
        yield


def forget(lease_id: UUID) -> None:
    """Have the server lose a lease and go on counting its slot, as one does that is restarted."""
    (leases() / f"{lease_id}.json").unlink()


def is_free(target: str) -> bool:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        lease_id = acquire(client, target)
        if lease_id is not None:
            client.release_concurrency_slots_with_lease(lease_id=lease_id)
        return lease_id is not None


def test_a_run_on_another_machine_is_waited_for_and_named_and_taken_over_when_its_machine_is_lost(
    target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with on_another_machine(monkeypatch, tmp_path / "theirs"):
        theirs = holder(target)
        other = theirs.__enter__()
    with pytest.raises(UpstreamUnavailable) as caught:
        one_writer(target, "me", wait=False).__enter__()
    assert str(caught.value).startswith(f"Target {target} is not free: flow run amber-otter (process {other.pid} on ")
    thread, listener, taken = take_in_a_thread(target)
    assert listener.heard.wait(60)
    (note,) = listener.notes
    assert note.startswith(f"Waiting for target {target}: flow run amber-otter (process {other.pid} on ")
    assert " has been writing to it since 20" in note
    assert not taken.is_set()

    other.send_signal(signal.SIGKILL)
    theirs.__exit__(None, None, None)
    assert not taken.is_set(), "nobody can know yet that it is gone for good"
    run_out(lease_of(target))
    thread.join(60)
    assert taken.is_set()
    assert is_free(target)


def test_a_lease_is_renewed_and_given_back(target: str) -> None:
    with server_slot(target, "me", wait=False):
        path = leases() / f"{lease_of(target)}.json"
        first = json.loads(path.read_text())["expiration"]
        wait_until(lambda: json.loads(path.read_text())["expiration"] > first, "it is renewed")
        assert not is_free(target)
    assert is_free(target)


def test_a_slot_whose_lease_the_server_forgot_is_taken_again(target: str) -> None:
    with server_slot(target, "me", wait=False) as held:
        first = lease_of(target)
        forget(first)
        wait_until(lambda: (leases() / f"{held._lease_id}.json").exists() and held._lease_id != first, "it is renewed")
        assert not is_free(target)
    assert is_free(target), "the slot is counted once, and given back"


def test_a_run_is_told_when_another_has_its_target_since_the_server_was_away(
    target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost_to: list[str] = []
    told = threading.Event()

    def lose(to: str) -> None:
        lost_to.append(to)
        told.set()

    # By its own clock it has not lost it, however long the other machine takes to begin.
    monkeypatch.setattr(lease, "PROVEN_SECONDS", 3600.0)
    # Away for longer than a lease lasts: nothing is renewed, and another machine comes first.
    monkeypatch.setattr(Lease, "_keep", _after(told_to_go := threading.Event(), Lease._keep))
    with one_writer(target, "me"), calling_when_lost(target, lose):
        run_out(lease_of(target))
        wait_until(lambda: is_free(target), "the server takes it back")
        with on_another_machine(monkeypatch, tmp_path / "theirs"), holder(target):
            told_to_go.set()
            assert told.wait(180)
        with calling_when_lost(target, lose):
            pass
        profile = Profile(target, "tributary", {"type": "duckdb", "path": str(tmp_path / "dev.duckdb")}, {})
        with pytest.raises(UpstreamUnavailable, match="flow run amber-otter"), open_warehouse(profile) as warehouse:
            warehouse.execute("create table not_made (id bigint)")
    assert len(lost_to) == 2, "who asks later is told as well"
    assert lost_to[0].startswith("flow run amber-otter (process ")


def _after(moment: threading.Event, keep: object) -> object:
    def waits(self: Lease) -> None:
        assert moment.wait(180)
        keep(self)  # type: ignore[operator]

    return waits


@pytest.fixture
def road(target: str, prefect_server: str) -> Iterator[Road]:
    """Return the holder's only way to the server; others have ways of their own."""
    with only_way(Road(prefect_server)) as way:
        yield way


def test_a_holder_that_alone_cannot_reach_the_server_gives_up_before_another_can_have_the_target(
    target: str, road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would go on writing beside the next run: the server can't tell it that the slot is somebody else's."""
    why: list[str] = []
    told = threading.Event()

    def lose(reason: str) -> None:
        why.append(reason)
        told.set()

    monkeypatch.setattr(lease, "PROVEN_SECONDS", 8.0)
    with server_slot(target, "me", wait=False) as held, held.calling_when_lost(lose):
        before = held._proven_at
        wait_until(lambda: held._proven_at > before, "it is renewed, and goes on for longer than it could without")
        assert not told.is_set()
        road.close()
        assert told.wait(60)
        assert why[0].startswith("the Prefect server has not renewed its right to write for 8 s (")
        assert why[0].endswith(" and can give the target to another machine soon")
        road.open()
    assert len(why) == 1, "it is told once, and does not take it anew"
    assert is_free(target), "what it can still give back it gives back"


def test_a_holder_that_is_to_finish_says_so_goes_on_and_is_seen_again_when_the_server_is_back(
    target: str, road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lease.AWAY_VARIABLE, "finish")
    monkeypatch.setattr(lease, "PROVEN_SECONDS", 3.0)
    notes = Notes()
    with reporting_to(notes), server_slot(target, "me", wait=False) as held:
        road.close()
        wait_until(lambda: bool(notes.said), "it is said that the server is away")
        assert "for 3 s (" in notes.said[0]
        assert notes.said[0].endswith(
            "TRIBUTARY_WHEN_SERVER_IS_AWAY is finish: no other machine may write to the target."
        )
        away_since = held._proven_at
        road.open()
        wait_until(lambda: held._proven_at > away_since, "it is renewed again")
        assert held.lost is None
        assert not is_free(target)
    assert is_free(target)


def test_what_a_run_does_while_the_server_is_away_is_one_of_two_things(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lease.AWAY_VARIABLE, "wait")
    with pytest.raises(ConfigError, match=r"AWAY is 'wait'\. Set it to stop, .*, or to finish\."):
        server_slot(target, "me", wait=False).__enter__()


def test_what_a_run_needs_to_stop_is_over_before_its_lease_is() -> None:
    assert lease.PROVEN_SECONDS + STOP_SECONDS < lease.LEASE_SECONDS <= lease.SILENT_SECONDS
    assert lease.RENEW_SECONDS * 3 < lease.PROVEN_SECONDS


def test_a_slot_whose_first_sign_of_life_fails_is_given_back(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        request = httpx.Request("PATCH", f"{os.environ['PREFECT_API_URL']}/variables/name/x")
        raise httpx.HTTPStatusError("", request=request, response=httpx.Response(500, request=request))

    with monkeypatch.context() as patch:
        patch.setattr(lease, "_write_sign", fail)
        with pytest.raises(UpstreamUnavailable, match=r"failed \(HTTP 500\)"), server_slot(target, "me", wait=False):
            pass
    assert is_free(target)


def test_a_slot_that_is_taken_anew_after_it_was_given_back_is_given_back_too(target: str) -> None:
    """A renewal that is on its way when the block ends meets a lease that is gone, which is no reason to take it."""
    from prefect.client.orchestration import get_client

    with server_slot(target, "me", wait=False) as held:
        pass
    with get_client(sync_client=True) as client:
        held._renew(client)
    assert is_free(target)


def test_a_dead_holder_whose_lease_the_server_forgot_is_taken_over(
    target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lease, "SILENT_SECONDS", 0.5)
    with on_another_machine(monkeypatch, tmp_path / "theirs"), holder(target) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
    forget(lease_of(target))
    thread, listener, taken = take_in_a_thread(target)
    thread.join(60)
    assert taken.is_set()
    assert isinstance(listener, Listener)
    assert listener.notes[1].endswith(f"sends no heartbeat: target {target} is taken over.")
    assert is_free(target)
