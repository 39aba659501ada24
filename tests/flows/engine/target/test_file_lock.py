"""One writer per target, on this machine and through the server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path

import pytest

from flows.engine.context.deadline import time_limit
from flows.engine.target.file_lock import calling_when_lost, held_files, locked_file, one_writer
from flows.warehouses.door import open_warehouse
from infrastructure.errors import ConfigError, RunTimedOut, UpstreamUnavailable
from infrastructure.profiles import Profile
from infrastructure.workspace import ROOT
from tests.support.lock_holders import holder, take_in_a_thread
from tests.support.processes import wait_until


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Return a target of which only the file counts: no server is configured."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield "dev"


def test_a_second_process_waits_and_says_for_whom(target: str) -> None:
    with holder(target) as other:
        thread, listener, taken = take_in_a_thread(target)
        assert listener.heard.wait(60)
        (note,) = listener.notes
        assert note.startswith(f"Waiting for target dev: flow run amber-otter (process {other.pid}) has been writing")
        assert not taken.is_set()
        assert other.stdin is not None
        other.stdin.close()
        thread.join(60)
    assert taken.is_set()
    assert len(listener.notes) == 1, "it is said once, however long it takes"


def test_a_holder_that_is_killed_lets_go(target: str) -> None:
    with holder(target) as other:
        thread, listener, taken = take_in_a_thread(target)
        assert listener.heard.wait(60)
        other.send_signal(signal.SIGKILL)
        thread.join(60)
    assert taken.is_set()


def test_another_target_does_not_wait(target: str) -> None:
    with holder(target):
        thread, listener, taken = take_in_a_thread("prod")
        thread.join(60)
    assert taken.is_set()
    assert not listener.notes


def test_a_run_does_not_wait_for_itself_and_lets_go_at_its_own_end(target: str) -> None:
    somebody_else = copy_context()
    with one_writer(target, "pipeline"):
        with one_writer(target, "its task"):
            pass
        thread, listener, taken = take_in_a_thread(target, somebody_else)
        assert listener.heard.wait(60), "the inner block did not let go of the outer one's target"
        assert not taken.is_set()
    thread.join(60)
    assert taken.is_set()


def test_an_error_in_the_block_lets_go(target: str) -> None:
    with pytest.raises(ZeroDivisionError), one_writer(target, "me"):
        _ = 1 / 0
    thread, _, taken = take_in_a_thread(target)
    thread.join(60)
    assert taken.is_set()


def test_the_wait_for_a_target_ends_with_the_time_of_the_run(target: str) -> None:
    with holder(target), time_limit(0.3), pytest.raises(RunTimedOut) as caught, one_writer(target, "me"):
        pytest.fail("two runs have it")
    assert str(caught.value).startswith("Target dev did not become free: flow run amber-otter (process ")
    assert str(caught.value).endswith("the 0.3 seconds that the run was given are over.")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b'{"holder": 1}'])
def test_a_lock_file_of_anything_else_is_still_a_lock(target: str, tmp_path: Path, content: bytes) -> None:
    with holder(target):
        (tmp_path / "locks" / "dev.lock").write_bytes(content)
        with pytest.raises(UpstreamUnavailable, match=r"is not free: another run is writing to it\. Try again"):
            one_writer(target, "me", wait=False).__enter__()


def test_a_lock_file_that_is_deleted_is_taken_anew_by_its_holder(target: str, tmp_path: Path) -> None:
    """The lock of a file without a name keeps nobody out: a second run wrote beside the first."""
    lock = tmp_path / "locks" / "dev.lock"
    with one_writer(target, "me"), calling_when_lost(target, pytest.fail):
        before = held_files()
        shutil.rmtree(lock.parent)
        wait_until(lambda: lock.exists() and lock.stat().st_size > 0, "the holder notices")
        assert held_files()[: len(before)] == before, "a dbt that has inherited one keeps it"
        with pytest.raises(subprocess.CalledProcessError) as caught:
            code = (
                "from flows.engine.target.file_lock import one_writer\n"
                f"one_writer({target!r}, 'x', wait=False).__enter__()"
            )
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
        assert "Target dev is not free: me (process" in caught.value.stderr
    with one_writer(target, "me again", wait=False):
        pass


def test_a_holder_whose_lock_file_was_deleted_hears_who_took_the_target(target: str, tmp_path: Path) -> None:
    heard, told = threading.Event(), list[str]()

    def act(because: str) -> None:
        told.append(because)
        heard.set()

    with one_writer(target, "me"):
        shutil.rmtree(tmp_path / "locks")
        with holder(target), calling_when_lost(target, act):
            assert heard.wait(60)
    assert "dev.lock was deleted, and flow run amber-otter (process" in told[0]


def test_what_this_process_writes_itself_ends_too_when_a_lock_that_was_deleted_is_taken_by_another(
    target: str, tmp_path: Path
) -> None:
    profile = Profile(target, "tributary", {"type": "duckdb", "path": str(tmp_path / "dev.duckdb")}, {})
    with one_writer(target, "me"), open_warehouse(profile) as warehouse:
        warehouse.execute("create table kept (id bigint)")
        shutil.rmtree(tmp_path / "locks")
        warehouse.execute("insert into kept values (1)")
        shutil.rmtree(tmp_path / "locks")
        with (
            holder(target),
            pytest.raises(
                UpstreamUnavailable, match=r"dev was stopped because its lock file .*and flow run amber-otter"
            ),
            warehouse.transaction(),
        ):
            warehouse.execute("insert into kept values (2)")
        assert warehouse.rows("select id from kept") == [{"id": 1}], "a deleted lock is taken anew while it is free"


def test_one_that_waits_for_a_file_that_is_deleted_takes_the_new_one(target: str, tmp_path: Path) -> None:
    with holder(target):
        thread, listener, taken = take_in_a_thread(target)
        assert listener.heard.wait(60)
        shutil.rmtree(tmp_path / "locks")
        thread.join(60)
        assert taken.is_set()


def test_a_full_disk_keeps_nobody_from_a_lock(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flows.engine.target.file_lock.os.pwrite", full)
    with one_writer(target, "me", wait=False):
        assert held_files()


def test_a_folder_that_cannot_be_made_is_named(target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"The lock of target dev can't be taken at .*dev\.lock: Not a directory"):
        one_writer(target, "me").__enter__()


def test_a_server_without_the_limit_is_told_how_to_make_it(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        one_writer("nobodys", "me").__enter__()
    assert "no concurrency limit dbt-nobodys" in str(caught.value)
    assert str(caught.value).endswith("uv run tributary setup --target nobodys")


def test_a_lock_is_had_once_and_a_file_that_is_deleted_meanwhile_is_none(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "any.lock"
    file = locked_file(path)
    assert file is not None
    assert locked_file(path) is None
    path.unlink()
    other = locked_file(path)
    assert other is not None, "whoever holds a file that is gone keeps nobody out, and has to look after it"
    os.close(file)
    assert locked_file(path) is None
    os.close(other)
