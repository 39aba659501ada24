"""Processes that are forked from one that has done what is dear: starting Python, importing dbt, reading its macros.

That costs ten times what a small build does. The process that plays the histories has it behind it, and forks: once for
each flow process, and from that, where dbt is the one of this environment, once for dbt, whose `child.main` then runs
as it always does, with its pipes, its group and its lifeline.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from benchmarks import warm_dbt

_T = TypeVar("_T")


def in_fork(act: Callable[[], _T]) -> _T:
    """Return what a function returns in a process of its own: DuckDB leaves threads behind, which no fork may have."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            answer = pickle.dumps(act())
            with open(write, "wb") as pipe:
                pipe.write(answer)
        except BaseException:  # noqa: BLE001  (a fork must not go on as its parent)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        answer = pipe.read()
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("a look at the warehouse failed")
    return pickle.loads(answer)


def warm_up() -> None:
    """Import all that a command needs, and have dbt parse something, so that forks have it behind them."""
    from multiprocessing import resource_tracker

    import prefect.settings

    import flows.engine.changed.relations
    import flows.engine.run
    import flows.warehouses.duckdb

    # dbt's locks want this process of Python's, which every fork would start for itself. At its end it complains of
    # the locks of those that were killed.
    errors = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    resource_tracker.ensure_running()
    os.dup2(errors, 2)
    os.close(errors)
    assert prefect.settings
    assert flows.engine.changed.relations and flows.engine.run and flows.warehouses.duckdb
    warm_dbt.warm_up()
    gc.collect()
    gc.freeze()


def fork_for_dbt() -> None:
    """Have the engine of this process fork for dbt of this environment, in place of starting it."""
    from flows.engine.process import process

    process._started = _Forked  # type: ignore[assignment]


class _Forked:
    """Stand in for the `Popen` of a dbt child: a fork of this process, which has imported dbt, runs `child.main`."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, descriptors: Sequence[int]
    ) -> None:
        from flows.engine.process.engines import OWN_DBT

        their_input, ours = os.pipe()
        our_output, theirs = os.pipe()
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become_dbt(argv[len(OWN_DBT) :], environment, folder, [*descriptors], their_input, theirs)
        os.close(their_input)
        os.close(theirs)
        self.stdin = open(ours, "wb", buffering=0)  # noqa: SIM115
        self.stdout = open(our_output, "rb")  # noqa: SIM115

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        """Wait for its end."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def communicate(self, timeout: float) -> None:
        """Read what it still says."""
        until = time.monotonic() + timeout
        os.set_blocking(self.stdout.fileno(), False)
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("dbt", timeout)
            self.stdout.read()
            time.sleep(0.01)


def _become_dbt(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    kept: list[int],
    their_input: int,
    theirs: int,
) -> NoReturn:
    from multiprocessing import resource_tracker

    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    from flows.engine.process import child

    code = 1
    try:
        os.setsid()
        for number, file in ((0, their_input), (1, theirs), (2, theirs)):
            os.dup2(file, number)
        tracker: Any = resource_tracker._resource_tracker  # type: ignore[attr-defined]
        last = 2
        for file in sorted({*kept, tracker._fd}):
            os.closerange(last + 1, file)
            last = file
        os.closerange(last + 1, 4096)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.argv[1:] = arguments
        child.main()
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except KeyboardInterrupt:
        code = 2
    except BaseException:  # noqa: BLE001  (a fork must not go on as its parent)
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            # At its end, a process of its own closes the file.
            DuckDBConnectionManager.close_all_connections()
            sys.stdout.flush()
        os._exit(code)
