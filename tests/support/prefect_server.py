"""A Prefect server of the tests' own, on a database that a server of this version has made before."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.prefect_api import client
from tests.support.processes import free_port, wait_until

_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Schedules are looked at often, so that a test need not wait a minute.
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    # Leases are files, so that a test can let one run out without waiting for it, and are looked at often.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "1",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
}
# What a server makes once, in as long as all the rest takes: the tables, and the types of blocks with a note of
# which they are.
_DATABASE, _NOTE = "prefect.db", "memo_store.toml"


@contextmanager
def prefect_server_running(home: Path, cache: Path) -> Iterator[str]:
    """Run a server while the block runs; yields the address of its API.

    Args:
        home: the folder that it writes to.
        cache: where what was made before is; the first server leaves it there.
    """
    import httpx

    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    is_kept = begin_with_what_is_kept(home, cache)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = inherited | _SETTINGS | {"PREFECT_HOME": str(home)}
    environment |= {"PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false"} if is_kept else {}
    start = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]

    def is_healthy() -> bool:
        if server.poll() is not None:
            pytest.fail(f"the Prefect server did not start:\n{(home / 'server.log').read_text()[-2000:]}")
        with suppress(httpx.TransportError):
            return client().get(f"{url}/health").is_success
        return False

    with (home / "server.log").open("w") as log:
        server = subprocess.Popen([sys.executable, *start], env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(is_healthy, "the Prefect server answers")
        if not is_kept:
            _keep(home, _kept(cache))
        yield url
    finally:
        server.terminate()
        server.wait(30)


def begin_with_what_is_kept(home: Path, cache: Path) -> bool:
    """Have a server find in its folder what another of its version made; False where that is not kept yet."""
    is_kept = _kept(cache).is_dir()
    if is_kept:
        shutil.copytree(_kept(cache), home, dirs_exist_ok=True)
    return is_kept


def _kept(cache: Path) -> Path:
    return cache / f"prefect-{version('prefect')}"


def _keep(home: Path, kept: Path) -> None:
    """Copy what the server made, whole or not at all."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=kept.parent))
    with closing(sqlite3.connect(home / _DATABASE)) as there, closing(sqlite3.connect(unfinished / _DATABASE)) as copy:
        there.backup(copy)
    shutil.copyfile(home / _NOTE, unfinished / _NOTE)
    try:
        unfinished.rename(kept)
    except OSError:
        # Another process was quicker.
        shutil.rmtree(unfinished)
