"""A PostgreSQL to test on: the one that is named, the usual one, or one of the session's own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.databases import server_at
from tests.support.processes import free_port, wait_until

_HOW_TO_HAVE_ONE = (
    "needs PostgreSQL: set TRIBUTARY_TEST_POSTGRES_URL=postgresql://user:password@host:port/database to one in which "
    "databases may be created, start one on 127.0.0.1:5432, or install its programs (initdb, pg_ctl)"
)


@contextmanager
def some_postgres() -> Iterator[dict[str, Any]]:
    """Yield the address of a PostgreSQL in which databases may be created; skip where there is none."""
    if address := _named_postgres() or _usual_postgres():
        yield address
        return
    with own_postgres() as address:
        yield address


def _named_postgres() -> dict[str, Any] | None:
    text = os.environ.get("TRIBUTARY_TEST_POSTGRES_URL")
    if not text:
        return None
    import psycopg2

    address = server_at(text)
    try:
        psycopg2.connect(**address, connect_timeout=5).close()
    except psycopg2.OperationalError as error:
        # It was asked for, so its absence is no reason to look elsewhere or to pass the tests over.
        pytest.fail(f"TRIBUTARY_TEST_POSTGRES_URL names a PostgreSQL that does not answer: {error}")
    return address


def _usual_postgres() -> dict[str, Any] | None:
    import psycopg2

    address = server_at()
    try:
        psycopg2.connect(**address, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return None
    return address


def postgres_programs() -> Path:
    """Return the folder that holds initdb and postgres; skip where they are not installed."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    places += sorted(Path("/opt/homebrew/opt").glob("postgresql*/bin"), reverse=True)
    places += [Path("/opt/homebrew/bin"), Path("/usr/local/pgsql/bin")]
    programs = next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)
    return programs or pytest.skip(_HOW_TO_HAVE_ONE)


def _unprivileged() -> dict[str, Any]:
    """Return how a process is started as a user who is not root: PostgreSQL refuses to be run by root."""
    if os.geteuid() != 0:
        return {}
    users = {user.pw_name: user for user in pwd.getpwall()}
    user = users.get("postgres") or users.get("nobody")
    if user is None:
        pytest.skip("running as root, and there is no user postgres or nobody to run PostgreSQL as")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def own_postgres(
    user: str = "postgres",
    password: str = "",
    files: dict[str, bytes] | None = None,
    settings: dict[str, str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Run a PostgreSQL on a free port for the time of the block, and yield its address.

    It trusts everybody unless there is a password. `files` are put into its data folder, pg_hba.conf among them.
    """
    programs, owner = postgres_programs(), _unprivileged()
    # A folder of its own: the server's user may not look into pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="tributary-postgres-"))
    data, port = folder / "data", free_port()
    options: dict[str, Any] = {"cwd": folder, "env": {**os.environ, "LC_ALL": "C", "HOME": str(folder)}, **owner}

    def is_ready() -> bool:
        if server.poll() is not None:
            pytest.fail(f"the PostgreSQL of these tests did not start:\n{(folder / 'log').read_text()[-2000:]}")
        return subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode == 0

    def write(path: Path, content: bytes) -> None:
        path.write_bytes(content)
        path.chmod(0o600)
        if owner:
            os.chown(path, owner["user"], owner["group"])

    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if owner:
            os.chown(folder, owner["user"], owner["group"])
        write(folder / "password", password.encode())
        signing = ["-A", "scram-sha-256", "--pwfile", folder / "password"] if password else ["-A", "trust"]
        initialise = [programs / "initdb", "-D", data, "-U", user, "-E", "UTF8", "--no-sync", *signing]
        subprocess.run(initialise, check=True, capture_output=True, **options)
        for name, content in (files or {}).items():
            write(data / name, content)
        run = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]
        run += [word for name, value in (settings or {}).items() for word in ("-c", f"{name}={value}")]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(run, stdout=log, stderr=subprocess.STDOUT, **options)
        stack.callback(server.wait, 30)
        stack.callback(server.terminate)
        wait_until(is_ready, "the PostgreSQL of these tests answers")
        yield {"host": "127.0.0.1", "port": port, "user": user, "password": password, "dbname": "postgres"}
