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

import pytest

from flows.engine import lease
from flows.engine.lease import Lease, acquire, server_slot
from flows.engine.lock import calling_when_lost, one_writer
from infrastructure.errors import UpstreamUnavailable
from infrastructure.registration import limit_name
from tests.conftest import wait_until
from tests.flows.engine.test_lock import Listener, holder, take_in_a_thread


@pytest.fixture
def target(prefect_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return a target with a limit on the server; this process is a machine of its own."""
    from infrastructure.server import connect

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


def leases() -> Path:
    """Return the folder of the server's leases."""
    return Path(os.environ["PREFECT_HOME"]) / "concurrency_leases"


def run_out(lease_id: UUID) -> None:
    """Put the end of a lease into the past, so that a minute need not go by."""
    past = "2026-01-31T00:00:00+00:00"
    path = leases() / f"{lease_id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "expiration": past}))
    index = leases() / "expirations.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), str(lease_id): past}))


def forget(lease_id: UUID) -> None:
    """Have the server lose a lease and go on counting its slot, as one does that is restarted."""
    (leases() / f"{lease_id}.json").unlink()


def lease_of(target: str) -> UUID:
    """Return the one lease of a target."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        limit = str(client.read_global_concurrency_limit_by_name(limit_name(target)).id)
    files = [path for path in leases().glob("*.json") if path.name != "expirations.json"]
    (mine,) = (path for path in files if limit in json.loads(path.read_text())["resource_ids"])
    return UUID(mine.stem)


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

    # Away for longer than a lease lasts: nothing is renewed, and another machine comes first.
    monkeypatch.setattr(Lease, "_keep", _after(told_to_go := threading.Event(), Lease._keep))
    with one_writer(target, "me"), calling_when_lost(target, lose):
        run_out(lease_of(target))
        wait_until(lambda: is_free(target), "the server takes it back")
        with on_another_machine(monkeypatch, tmp_path / "theirs"), holder(target):
            told_to_go.set()
            assert told.wait(60)
        with calling_when_lost(target, lose):
            pass
    assert len(lost_to) == 2, "who asks later is told as well"
    assert lost_to[0].startswith("flow run amber-otter (process ")


def _after(moment: threading.Event, keep: object) -> object:
    def waits(self: Lease) -> None:
        assert moment.wait(60)
        keep(self)  # type: ignore[operator]

    return waits


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
    assert listener.notes[1].endswith(f"shows no sign of life: target {target} is taken over.")
    assert is_free(target)
