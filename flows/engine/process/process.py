"""dbt as a child process in a group of its own, which can be stopped for good."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from flows.engine.process.child import STOP_SECONDS
from flows.engine.process.engines import OWN_DBT
from flows.engine.process.environment import ahead_environment
from flows.engine.process.warm import children_ahead, take_standby
from infrastructure.errors import ConfigError
from infrastructure.program import PROGRAM_VARIABLE


def dbt_ahead(count: int, adapter: str | None = None, dbt: str | None = None) -> AbstractContextManager[None]:
    """Start the next `count` dbt children of a block ahead of time; see `warm.children_ahead`.

    Args:
        dbt: which one the target names. A program of its own has nothing that could be done ahead.
    """
    if dbt or os.environ.get(PROGRAM_VARIABLE):
        return contextlib.nullcontext()
    return children_ahead(OWN_DBT, ahead_environment(os.environ), count, adapter)


class DbtProcess:
    """A running dbt command; leaving the `with` block leaves no process of it behind."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start the child.

        Args:
            descriptors: open files that the child keeps open, such as the lock of its target.

        Raises:
            ConfigError: it could not be started.
        """
        self._popen = _standing_by(argv, environment, folder, descriptors) or _started(
            argv, environment, folder, descriptors
        )
        self._killer: threading.Timer | None = None
        self._interrupting = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe:
                pipe.close()

    @property
    def pid(self) -> int:
        """Return the process id, which is also the id of the group."""
        return self._popen.pid

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of the child's output as they are written, until it closes its end."""
        assert self._popen.stdout is not None
        # Not `yield from`: left in the middle, that would close the pipe under a dbt that still has to say goodbye.
        for line in self._popen.stdout:  # noqa: UP028
            yield line

    def wait(self) -> int:
        """Wait for the child to end, and return its exit code; negative when a signal ended it."""
        return self._popen.wait()

    @property
    def is_interrupted(self) -> bool:
        """Return whether it was asked to end before its end."""
        return self._killer is not None

    def interrupt(self, patience_seconds: float = STOP_SECONDS) -> None:
        """Ask the group to end as Ctrl-C does, and kill it when it has not ended after a while; returns at once."""
        # Once only, from however many threads it is asked: a second one would keep dbt from cancelling its queries.
        with self._interrupting:
            if self._killer is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGINT)
                self._killer = threading.Timer(patience_seconds, self._kill)
                self._killer.daemon = True
                self._killer.start()

    def stop(self, patience_seconds: float = STOP_SECONDS) -> None:
        """End the whole group: ask as Ctrl-C does, so that dbt cancels its queries, then kill what is left."""
        try:
            if self._popen.poll() is None:
                self.interrupt(patience_seconds)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._drain(patience_seconds)
        finally:
            # Also when a second signal ends the wait. The leader may be gone and a process that it started may not.
            if self._killer:
                self._killer.cancel()
            self._kill()
            self._popen.wait()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _drain(self, patience_seconds: float) -> None:
        # A child that cannot write its last lines into a full pipe never ends.
        with contextlib.suppress(ValueError):
            self._popen.communicate(timeout=patience_seconds)


def _standing_by(
    argv: Sequence[str], environment: Mapping[str, str], folder: Path, descriptors: Sequence[int]
) -> subprocess.Popen[bytes] | None:
    """Return a child that was started ahead of time and now runs this; None when there is none."""
    program, arguments = argv[: len(OWN_DBT)], argv[len(OWN_DBT) :]
    standby = take_standby(program) if folder.is_dir() else None
    if standby and standby.become(arguments, environment, folder, descriptors):
        return standby.process
    return None


def _started(
    argv: Sequence[str], environment: Mapping[str, str], folder: Path, descriptors: Sequence[int]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            # Never written to: its end tells the child that this process is gone, see child.py.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
            pass_fds=tuple(descriptors),
        )
    except OSError as exc:
        raise ConfigError(f"dbt could not be started in {folder}: {exc.strerror}. Is the folder there?") from exc
