"""dbt children that are forked from a process which has imported dbt and parsed once.

Importing dbt and parsing dbt's own macros is most of what a child of the tests does, and there are hundreds of them.
A forked one runs the same file and is a process like any other: a child of whoever asked for it, in a group of its
own, with pipes, an environment, a folder and signals of its own. What is about the start of a child takes `cold_dbt`.

This file is also the program that they are forked from; there it imports nothing of this project, as child.py does not.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import ctypes
import fcntl
import gc
import importlib
import inspect
import json
import os
import runpy
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_MOST_FILES = 32
COLD_POPEN = subprocess.Popen


class WarmDbt:
    """The process that has imported dbt; started when the first child is asked for."""

    def __init__(self, *programs: Sequence[str]) -> None:
        """Say which programs its children run: Python, its flags, and a file or `-c` and code."""
        self.programs = tuple(map(tuple, programs))
        # One at a time: it is for the whole of this process that orphans are taken.
        self._asking = threading.Lock()

    @cached_property
    def _control(self) -> socket.socket:
        control, theirs = socket.socketpair()
        told = {name: value for name, value in os.environ.items() if not name.startswith(("DBT_", "PREFECT_"))}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                env={**told, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "PYTHONUTF8": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return control

    def fork(self, argv: Sequence[str], environment: Mapping[str, str], folder: str, files: Mapping[int, int]) -> int:
        """Start a child of this process and return its process id.

        Args:
            files: open files of this process, by the numbers that they have in the child.
        """
        told = {"argv": argv, "environment": dict(environment), "folder": folder, "numbers": list(files)}
        message = json.dumps(told).encode()
        with self._asking, _taking_orphans():
            socket.send_fds(self._control, [struct.pack("!I", len(message))], list(files.values()))
            self._control.sendall(message)
            return struct.unpack("!I", _read_exactly(self._control, 4))[0]

    def close(self) -> None:
        """End it; its children go on."""
        if "_control" in self.__dict__:
            self._control.close()
            self._process.wait(30)


@contextlib.contextmanager
def _taking_orphans() -> Iterator[None]:
    """Become the parent of what is orphaned among this process's descendants meanwhile."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def warm_popen(warm: WarmDbt) -> type[subprocess.Popen[Any]]:
    """Return a Popen that forks what has the program of these children, and starts everything else as ever."""
    named = inspect.signature(subprocess.Popen._execute_child)
    ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")

    class WarmPopen(subprocess.Popen[Any]):
        def _execute_child(self, *given: Any) -> None:
            told = named.bind(self, *given).arguments
            argv, folder = list(told["args"]), os.path.abspath(told["cwd"] or ".")
            is_warm = tuple(argv[:3]) in warm.programs and told["start_new_session"] and os.path.isdir(folder)
            if not is_warm:
                super()._execute_child(*given)
                return
            own = enumerate(told[end] for end in ("p2cread", "c2pwrite", "errwrite"))
            files = {number: number if file < 0 else file for number, file in own}
            files |= {number: number for number in told["pass_fds"]}
            try:
                self.pid = warm.fork(argv, os.environ if told["env"] is None else told["env"], folder, files)
                self._child_created = True
            finally:
                self._close_pipe_fds(*(told[end] for end in ends))

    return WarmPopen


def _read_exactly(control: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = control.recv(size - len(received))
        if not part:
            raise EOFError("the process that dbt children are forked from is gone")
        received += part
    return received


def warm_up() -> None:
    """Import dbt and the adapters that are there, and parse a project."""
    from dbt.cli.main import dbtRunner
    from dbt_common.tests import enable_test_caching

    # dbt's own, for its own tests: what Jinja made of a text is kept, so that no child parses dbt's macros again.
    enable_test_caching()
    for adapter in ("postgres", "duckdb"):
        with contextlib.suppress(ImportError):
            importlib.import_module(f"dbt.adapters.{adapter}")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {
            "models/one.sql": "{{ config(materialized='table') }} select 1 as id",
            "models/one.yml": "models: [{name: one, columns: [{name: id, data_tests: [unique]}]}]",
            "models/raw.yml": "sources: [{name: raw, tables: [{name: rows}]}]",
            "seeds/two.csv": "id\n1\n",
            "snapshots/three.sql": (
                "{% snapshot three %}{{ config(unique_key='id', strategy='check', check_cols='all') }}"
                "select * from {{ ref('one') }}{% endsnapshot %}"
            ),
            "tests/four.sql": "select * from {{ ref('one') }} where id is null",
            "dbt_project.yml": "{name: warm, profile: warm}",
            "profiles.yml": "warm: {target: dev, outputs: {dev: {type: duckdb}}}",
        }.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        # The static parser has threads, which would not come along: a child would wait for them for ever.
        flags = ["--quiet", "--log-level", "none", "--log-level-file", "none", "--no-static-parser"]
        command = [*flags, "parse", "--project-dir", folder, "--profiles-dir", folder]
        # In a context of its own: what dbt keeps there is not for the next one to find.
        done = contextvars.copy_context().run(dbtRunner().invoke, command)
        assert done.success, done.exception
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads can't be forked"
    gc.collect()
    gc.freeze()


def _fork_when_asked(control: socket.socket) -> dict[str, Any] | None:
    """Fork a child for each request and return the request in the child; None when there will be no more."""
    while True:
        head, received, _, _ = socket.recv_fds(control, 4, _MOST_FILES)
        if len(head) < 4:
            return None
        request = json.loads(_read_exactly(control, struct.unpack("!I", head)[0])) | {"received": received}
        answer, to_answer = os.pipe()
        between = os.fork()
        if not between:
            if child := os.fork():
                os.write(to_answer, struct.pack("!I", child))
                os._exit(0)
            os.close(answer)
            os.close(to_answer)
            return request
        # Its end makes an orphan of the child, and the process that asked takes it.
        os.waitpid(between, 0)
        control.sendall(os.read(answer, 4))
        for file in (answer, to_answer, *received):
            os.close(file)


def _become(request: dict[str, Any], control: socket.socket) -> None:
    from multiprocessing.resource_tracker import _resource_tracker as tracker

    control.close()
    # What was registered so far is for the end of the process that was forked.
    atexit._clear()
    # It starts one of its own, as a cold one does: it could not wait for this one, which is not its child.
    tracker._fd = tracker._pid = None
    os.setsid()
    highest = max(request["numbers"]) + 1
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, max(highest, 64)) for file in request["received"]]
    for file in request["received"]:
        os.close(file)
    for file, number in zip(moved, request["numbers"], strict=True):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["folder"])


def main() -> None:
    """Import dbt, then be forked again and again."""
    control = socket.socket(fileno=int(sys.argv[1]))
    warm_up()
    request = _fork_when_asked(control)
    # At its end the collector may look at everything again, as it may at the end of a child.
    gc.unfreeze()
    if request:
        _become(request, control)
        _, flag, program, *arguments = request["argv"]
        if flag == "-c":
            sys.path.insert(0, "")
            sys.argv = ["-c", *arguments]
            exec(program, {"__name__": "__main__"})
        else:
            sys.argv = [program, *arguments]
            runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
