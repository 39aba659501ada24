"""Workers of Prefect, as a person starts them in a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from infrastructure.workspace import ROOT


@contextmanager
def worker_of(pool: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of a process pool, which gives a sign of life every second and makes the pool, for the block."""
    often = {"PREFECT_WORKER_HEARTBEAT_SECONDS": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    environment = {**os.environ, **often, "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        yield started
    finally:
        kill_all(started.pid)
        started.wait()


def kill_all(pid: int) -> None:
    """Kill a process and all that it started, all at once."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        _kill([process, *process.children(recursive=True)])


def kill_what_it_started(pid: int) -> None:
    """Kill all that a process started, and not the process itself."""
    with suppress(psutil.NoSuchProcess):
        _kill(psutil.Process(pid).children(recursive=True))


def _kill(processes: list[psutil.Process]) -> None:
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
