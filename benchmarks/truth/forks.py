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


def warm_up(folder: Path) -> None:
    """Import all that a command needs, and have dbt build something, so that forks have it behind them."""
    from multiprocessing import resource_tracker

    import dbt.adapters.duckdb
    import prefect.settings
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

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
    assert dbt.adapters.duckdb and prefect.settings
    assert flows.engine.changed.relations and flows.engine.run and flows.warehouses.duckdb
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text("name: warm\nprofile: warm\nversion: '1.0'\n")
    (folder / "models" / "one.sql").write_text("{{ config(materialized='table') }}\nselect 1 as id\n")
    (folder / "models" / "one.yml").write_text("models: [{name: one, columns: [{name: id, data_tests: [unique]}]}]\n")
    output = f"{{type: duckdb, path: '{folder}/warm.duckdb', threads: 2}}"
    (folder / "profiles.yml").write_text(f"warm: {{target: dev, outputs: {{dev: {output}}}}}\n")
    places = ["--project-dir", str(folder), "--profiles-dir", str(folder), "--target-path", str(folder / "target")]
    # dbt's parser of plain models begins threads of its own, which a fork would wait for and not have.
    silent = [
        "--no-static-parser",
        "--log-level",
        "none",
        "--log-level-file",
        "none",
        "--log-path",
        str(folder / "logs"),
    ]
    parsed = _Parsed()
    for verb in ("build", "ls"):
        done = dbtRunner().invoke([verb, *places, *silent, *(["--quiet"] if verb == "ls" else [])])
        assert done.success, done.exception
    # Of the projects themselves nothing is kept.
    parsed.is_complete = True
    DuckDBConnectionManager.close_all_connections()
    gc.collect()
    gc.freeze()


class _Parsed:
    """What Jinja makes of texts: most of a first parse are dbt's own macros, which are the same each time."""

    def __init__(self) -> None:
        from dbt_common.clients import jinja

        environment: Any = jinja.MacroFuzzEnvironment
        self._parse = environment._parse
        self._known: dict[Any, Any] = {}
        self.is_complete = False

        def looked_up(*arguments: Any) -> Any:  # noqa: ANN401
            return self(*arguments)

        environment._parse = looked_up

    def __call__(self, environment: Any, source: str, *place: Any) -> Any:  # noqa: ANN401  (Jinja's)
        key = (type(environment), *sorted(environment.extensions), source)
        found = self._known.get(key)
        if found is None:
            found = self._parse(environment, source, *place)
            if not self.is_complete:
                self._known[key] = found
        return found


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
