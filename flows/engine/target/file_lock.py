"""One writer per target: two at once are how a slowly changing dimension gets two current rows.

On one machine a file lock does it, which the operating system lets go of whatever happens to the process. Between
machines the server's concurrency limit `dbt-<target>` does, with a lease that runs out when its holder is gone
(`server_lease.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.engine.context.deadline import require_time
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import STATE_VARIABLE, state_root
from flows.engine.ledger.ledger import is_file_at
from flows.engine.target.server_lease import Lease, server_slot
from flows.warehouses.warehouse import asking_before_writes
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.private_files import private_folder

_POLL_SECONDS = 0.2
# How often a run that writes looks whether its lock file is still there.
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class _Held:
    """A target that this run may write to: its lock file, and its slot where the server is shared."""

    file: _LockFile
    lease: Lease | None

    def why_lost(self) -> str | None:
        """Return why this run may not write to the target any more, as a clause; None while it may."""
        return (self.lease and self.lease.lost) or self.file.why_lost()


# A pipeline's tasks must not wait for their own pipeline.
_held: ContextVar[Mapping[str, _Held]] = ContextVar("tributary_held_targets")


@contextmanager
def one_writer(target: str, holder: str, wait: bool = True) -> Iterator[None]:
    """Hold a target for the time of the block; wait, and say for whom, while another run holds it.

    A warehouse that is opened in the block writes no more once the target is lost.

    Args:
        holder: the text for waiting runs, such as the flow run's name.
        wait: otherwise a target that is held is an error at once.

    Raises:
        UpstreamUnavailable: the target is held, and it was asked not to wait.
        RunTimedOut: the time limit in force passed while waiting.
        ConfigError: the server has no limit for the target.
    """
    held = _held.get({})
    if target in held:
        yield
        return
    with ExitStack() as stack:
        file = stack.enter_context(
            _file_lock(state_root(os.environ) / "locks" / f"{target}.lock", target, holder, wait)
        )
        lease = stack.enter_context(server_slot(target, holder, wait)) if _is_shared_server() else None
        mine = _Held(file, lease)
        token = _held.set({**held, target: mine})
        stack.callback(_held.reset, token)
        # dbt is stopped by `calling_when_lost`; what this process writes itself asks before each statement.
        stack.enter_context(asking_before_writes(target, mine.why_lost))
        yield


def held_files() -> list[int]:
    """Return the descriptors of the lock files that this run holds.

    A child that inherits them keeps its target locked for as long as it lives, even when this process is killed.
    """
    return [file for held in _held.get({}).values() for file in held.file.descriptors]


@contextmanager
def calling_when_lost(target: str, act: Callable[[str], None]) -> Iterator[None]:
    """Call a function when this run may not write to a target any more that it holds, from a thread of its own.

    It is called with the reason, as a clause. The server was away for longer than a lease and on its return gave the
    target to another machine; or this machine alone can't reach it, and the server can do so at any moment; or the lock
    file was deleted, which then locks nothing.
    """
    held = _held.get({}).get(target)
    with ExitStack() as stack:
        if held and held.lease:
            stack.enter_context(held.lease.calling_when_lost(act))
        if held:
            stack.enter_context(held.file.calling_when_lost(act))
        yield


class _LockFile:
    """The lock file of a target. A deleted one locks nothing, so it is created and locked again."""

    def __init__(self, path: Path, target: str, holder: str) -> None:
        self._path = path
        self._target = target
        self._about = {
            "holder": holder,
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        # The last one is in force. dbt has inherited those before, so they stay open.
        self.descriptors: list[int] = []
        # It is looked after from a thread while dbt runs, and before each statement of this process's own.
        self._guard = threading.Lock()

    def take(self) -> bool:
        """Take the lock; False when another run holds it.

        Raises:
            ConfigError: the file can't be opened.
        """
        try:
            file = locked_file(self._path)
        except OSError as exc:
            raise ConfigError(
                f"The lock of target {self._target} can't be taken at {self._path}: {exc.strerror}. "
                f"Choose a folder that can be written to with {STATE_VARIABLE}."
            ) from exc
        if file is None:
            return False
        self.descriptors.append(file)
        # Its text is for waiting runs; on a full disk they show less.
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(self._about).encode(), 0)
        return True

    def why_lost(self) -> str | None:
        """Return why the run has lost the target; a file that was deleted is locked again while it is free."""
        # A folder that can't be read or written for a moment is no loss.
        with contextlib.suppress(OSError, ConfigError), self._guard:
            if not is_file_at(self.descriptors[-1], self._path) and not self.take():
                return f"its lock file {self._path} was deleted, and {_held_by(self._path)}"
        return None

    @contextmanager
    def calling_when_lost(self, act: Callable[[str], None]) -> Iterator[None]:
        """Look after the lock file, from a thread, for the time of the block; see the function of that name."""
        done = threading.Event()

        def look() -> None:
            while True:
                if why := self.why_lost():
                    act(why)
                    return
                if done.wait(_LOOK_SECONDS):
                    return

        thread = threading.Thread(target=look, name="tributary-lock-file", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def close(self) -> None:
        """Let the target go."""
        for file in self.descriptors:
            os.close(file)


@contextmanager
def _file_lock(path: Path, target: str, holder: str, wait: bool) -> Iterator[_LockFile]:
    lock = _LockFile(path, target, holder)
    try:
        told = False
        while not lock.take():
            if not wait:
                raise UpstreamUnavailable(f"Target {target} is not free: {_held_by(path)}. Try again when it is done.")
            if not told:
                current_reporter().note(f"Waiting for target {target}: {_held_by(path)}.")
                told = True
            require_time(f"Target {target} did not become free: {_held_by(path)}")
            time.sleep(_POLL_SECONDS)
        yield lock
    finally:
        lock.close()


def locked_file(path: Path) -> int | None:
    """Open a lock file, created if need be, and lock it until it is closed; None when another process holds it.

    Raises:
        OSError: it can't be made or opened.
    """
    # Not filelock: a dbt child inherits the open descriptor, so that the target is locked until dbt has ended too, and
    # filelock keeps its descriptor to itself.
    private_folder(path.parent)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Since it was opened it may have been deleted: a file without a name locks nothing.
        if is_file_at(file, path):
            return file
    except BlockingIOError:
        pass
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _held_by(path: Path) -> str:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return f"{about['holder']} (process {about['pid']}) has been writing to it since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run is writing to it"


def _is_shared_server() -> bool:
    # Without an address every process has a temporary server of its own, and leases end with it.
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value() is not None
