"""Children that are forked from a process which has done what is dear at their start.

Importing dbt and parsing its own macros, importing Prefect and its server: that is most of what the children of the
tests do, and there are hundreds of them. A forked one runs the same program and is a process like any other: a child
of whoever asked for it, in a session of its own, with pipes, an environment, a folder and signals of its own; what it
starts itself is forked in the same way. What is about the start of a child takes `cold_children`.

This file is also the program that they are forked from: `forks.py NUMBER-OF-A-SOCKET WARM-UP`. There it imports nothing
of this project, as dbt's child.py does not.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import inspect
import io
import json
import logging
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_CHILD_SUBREAPER = 36
_MOST_FILES = 32
# What Python looks at as it starts: a fork has what its server had, but for what is done again.
_OF_PYTHON = ("PYTHON", "LC_", "LANG")
_DONE_AGAIN = ("PYTHONUTF8", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
_SERVER = (sys.executable, "-P", __file__)
COLD_POPEN = subprocess.Popen

Program = tuple[str, ...]


class ForkClient:
    """The way to a process that others are forked from."""

    def __init__(self, control: socket.socket, programs: Iterable[Program]) -> None:
        """Say which programs its children run: Python, a flag, and a file, a module or code."""
        self.programs = frozenset(map(tuple, programs))
        self._told = control
        # One at a time: it is for the whole of this process that orphans are taken.
        self._asking = threading.Lock()

    @property
    def _control(self) -> socket.socket:
        return self._told

    def fork(self, argv: Sequence[str], environment: Mapping[str, str], folder: str, files: Mapping[int, int]) -> int:
        """Start a child of this process and return its process id.

        Args:
            files: open files of this process, by the numbers that they have in the child.
        """
        told = {"argv": argv, "environment": dict(environment), "folder": folder, "numbers": list(files)}
        told |= {"errors": sys.__stdout__.errors if sys.__stdout__ else "strict", "programs": list(self.programs)}
        message = json.dumps(told).encode()
        # Whatever has to be started first takes orphans of its own.
        control = self._control
        with self._asking, _taking_orphans():
            socket.send_fds(control, [struct.pack("!I", len(message))], list(files.values()))
            control.sendall(message)
            return struct.unpack("!I", _read_exactly(control, 4))[0]


class ForkServer(ForkClient):
    """Such a process of one's own, started when the first child is asked for."""

    def __init__(self, warm_up: Path, programs: Iterable[Program], base: ForkServer | None = None) -> None:
        """Say what its children have behind them.

        Args:
            warm_up: the file whose `warm_up` it runs first; children that run a module run its `after_fork`.
            base: the server that it is forked from itself.
        """
        self.programs = frozenset([*map(tuple, programs), *(base.programs if base else ()), _SERVER])
        self._asking = threading.Lock()
        self._warm_up, self._base = warm_up, base

    @cached_property
    def _control(self) -> socket.socket:
        control, theirs = socket.socketpair()
        told = {name: value for name, value in os.environ.items() if not name.startswith(("DBT_", "PREFECT_"))}
        popen = warm_popen(self._base) if self._base else COLD_POPEN
        with theirs:
            self._process = popen(
                [*_SERVER, str(theirs.fileno()), str(self._warm_up)],
                env={**told, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "PYTHONUTF8": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return control

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


def warm_popen(*servers: ForkClient) -> type[subprocess.Popen[Any]]:
    """Return a Popen that forks what has a program of these servers, and starts everything else as ever."""
    named = inspect.signature(COLD_POPEN._execute_child)
    ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
    by_program = {program: server for server in servers for program in server.programs}

    class WarmPopen(COLD_POPEN):  # type: ignore[misc, valid-type]
        def _execute_child(self, *given: Any) -> None:
            told = named.bind(self, *given).arguments
            folder = os.path.abspath(told["cwd"] or ".")
            argv = [] if isinstance(told["args"], (str, os.PathLike)) else [os.fspath(word) for word in told["args"]]
            environment = dict(os.environ if told["env"] is None else told["env"])
            server = by_program.get(tuple(argv[:3]))
            if server is None or told["preexec_fn"] or not os.path.isdir(folder) or not _is_like_ours(environment):
                super()._execute_child(*given)
                return
            own = enumerate(told[end] for end in ("p2cread", "c2pwrite", "errwrite"))
            files = {number: number if file < 0 else file for number, file in own}
            files |= {number: number for number in told["pass_fds"]}
            try:
                self.pid = server.fork(argv, environment, folder, files)
                self._child_created = True
            finally:
                self._close_pipe_fds(*(told[end] for end in ends))

    return WarmPopen


def _is_like_ours(environment: Mapping[str, str]) -> bool:
    """Say whether Python would start in it as it did in this process's own."""

    def looked_at(variables: Mapping[str, str]) -> dict[str, str]:
        return {
            name: value for name, value in variables.items() if name.startswith(_OF_PYTHON) and name not in _DONE_AGAIN
        }

    return looked_at(environment) == looked_at(os.environ)


def _read_exactly(control: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = control.recv(size - len(received))
        if not part:
            raise EOFError("the process that children are forked from is gone")
        received += part
    return received


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


def _serve(control: socket.socket) -> tuple[dict[str, Any], socket.socket | None] | None:
    """Be forked until there is nobody left to ask; in a child, return its request and its way to a server of its own.

    A process is the parent of what its descendants fork, and of nothing else. So a module's program, which starts dbt,
    has a server below it: a copy of what it was before it began.
    """
    while request := _fork_when_asked(control):
        control.close()
        if request["argv"][1] != "-m":
            _leave_behind()
            return request, None
        ours, control = socket.socketpair()
        if os.fork():
            control.close()
            return request, ours
        ours.close()
        # What is told to its group is not for this one, and the pipes are not either.
        os.setsid()
        for file in request["received"]:
            os.close(file)
    return None


def _leave_behind() -> None:
    """Leave to the process that was forked what is for its own end."""
    from multiprocessing import util
    from multiprocessing.resource_tracker import _resource_tracker as tracker

    atexit._clear()
    for at_end in (logging.shutdown, util._exit_function, weakref.finalize._exitfunc):
        atexit.register(at_end)
    # It starts one of its own, as a cold one does: it could not wait for this one, which is not its child.
    tracker._fd = tracker._pid = None


def _become(request: Mapping[str, Any]) -> None:
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
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    is_through = bool(os.environ.get("PYTHONUNBUFFERED"))
    for name, number, errors in (("stdout", 1, request["errors"]), ("stderr", 2, "backslashreplace")):
        binary = open(number, "wb", buffering=0 if is_through else -1, closefd=False)  # noqa: SIM115
        is_by_line = name == "stderr" or os.isatty(number)
        stream = io.TextIOWrapper(binary, "utf-8", errors, line_buffering=is_by_line, write_through=is_through)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors=request["errors"], closefd=False)  # noqa: SIM115


def _run_program(argv: Sequence[str]) -> None:
    _, flag, program, *arguments = argv
    sys.argv = [program, *arguments]
    if flag == "-c":
        sys.path.insert(0, "")
        sys.argv[0] = "-c"
        exec(program, {"__name__": "__main__"})
    elif flag == "-m":
        sys.path.insert(0, os.getcwd())
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")


def _end_with(act: Callable[..., object], *arguments: object) -> NoReturn:
    """End the process as Python does after a program, but for the memory, of which DuckDB misses some of a fork's."""
    code: object = 0
    is_interrupted = False
    try:
        act(*arguments)
    except SystemExit as exc:
        code = exc.code
    except BaseException as exc:  # noqa: BLE001  (as Python does)
        sys.excepthook(type(exc), exc, exc.__traceback__)
        is_interrupted, code = isinstance(exc, KeyboardInterrupt), 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = 120
    if is_interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code or 0)


def main() -> None:
    """Warm up, then be forked again and again."""
    control = socket.socket(fileno=int(sys.argv[1]))
    # The tests may run where Ctrl-C is ignored; their children are stopped with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = list(sys.path)
    there = runpy.run_path(sys.argv[2])
    there["warm_up"]()
    sys.path[:] = path
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads can't be forked"
    gc.collect()
    gc.freeze()
    begun = _serve(control)
    if begun is None:
        _end_with(lambda: None)
    request, ours = begun
    _become(request)
    if ours:
        there["after_fork"](request["argv"][2])
        subprocess.Popen = warm_popen(ForkClient(ours, request["programs"]))  # type: ignore[misc]
    _end_with(_run_program, request["argv"])


if __name__ == "__main__":
    main()
