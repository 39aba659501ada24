"""dbt children that are started ahead of time: they import dbt while the flow process still gets ready.

Importing dbt takes two to three seconds, as long as everything that comes before the first node in the flow process.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from flows.engine.process.child import ADAPTER_VARIABLE, CONTROL_VARIABLE


class Standby:
    """A child that has been started and not yet been told what to do."""

    def __init__(self, program: Sequence[str], environment: Mapping[str, str], adapter: str | None) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={
                    **environment,
                    CONTROL_VARIABLE: str(theirs.fileno()),
                    ADAPTER_VARIABLE: adapter or "",
                },
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )

    def become(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, descriptors: Sequence[int]
    ) -> bool:
        """Tell the child what to run; False when it is not there any more.

        Args:
            descriptors: open files that it keeps open, under numbers of its own.
        """
        command = {"arguments": list(arguments), "environment": dict(environment), "folder": str(folder)}
        message = json.dumps(command).encode()
        try:
            with self._control:
                socket.send_fds(self._control, [struct.pack("!I", len(message))], descriptors)
                self._control.sendall(message)
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        """End a child that is not needed."""
        self._control.close()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


class _Ahead:
    """The children that are still to be started, one waiting at a time."""

    def __init__(self, program: Sequence[str], environment: Mapping[str, str], count: int, adapter: str | None) -> None:
        self._program, self._environment, self._adapter = program, environment, adapter
        self._left = count
        self._waiting: Standby | None = None
        self._start()

    def take(self, program: Sequence[str]) -> Standby | None:
        taken, self._waiting = self._waiting, None
        if taken is None or list(program) != list(self._program):
            self._waiting = taken
            return None
        self._start()
        return taken

    def close(self) -> None:
        self._left = 0
        if self._waiting:
            self._waiting.close()

    def _start(self) -> None:
        if self._left > 0:
            self._left -= 1
            # Without it everything goes on as it would have anyway.
            with contextlib.suppress(OSError):
                self._waiting = Standby(self._program, self._environment, self._adapter)


_ahead: ContextVar[_Ahead | None] = ContextVar("tributary_children_ahead", default=None)


@contextmanager
def children_ahead(
    program: Sequence[str], environment: Mapping[str, str], count: int, adapter: str | None = None
) -> Iterator[None]:
    """Start the next `count` dbt children of this block ahead of time; inside such a block, do nothing.

    Args:
        environment: holds no secret; each child is given its own with its command.
        adapter: the dbt adapter to import, such as "duckdb"; left to dbt when None.
    """
    if _ahead.get() is not None:
        yield
        return
    ahead = _Ahead(program, environment, count, adapter)
    token = _ahead.set(ahead)
    try:
        yield
    finally:
        _ahead.reset(token)
        ahead.close()


def take_standby(program: Sequence[str]) -> Standby | None:
    """Return a child that waits for its command, or None."""
    ahead = _ahead.get()
    return ahead.take(program) if ahead else None
