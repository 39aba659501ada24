"""A key that a client wants as a file: readable for dbt, never on a disk, gone with the process that held it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrastructure.connection_check.check import check
from infrastructure.profiles import profile_of
from infrastructure.targets.key_files import path_of_key
from infrastructure.targets.warehouses import PostgresTarget
from infrastructure.workspace import ROOT
from tests.support.postgres import own_postgres

in_memory = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")

# Makes a key's file, says where, and waits to be killed.
HOLDER = """
from infrastructure.targets.key_files import path_of_key
print(path_of_key("-----BEGIN PRIVATE KEY-----"), flush=True)
input()
"""


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates() -> Iterator[Path]:
    """Make an authority and two certificates of it: for the server 127.0.0.1, and for the user loader."""
    with tempfile.TemporaryDirectory(prefix="tributary-certificates-") as name:
        folder = Path(name)
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
        openssl(folder, "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
        for whose, subject in (("server", "/CN=127.0.0.1"), ("client", "/CN=loader")):
            openssl(folder, "req", *new, "-keyout", f"{whose}.key", "-out", f"{whose}.csr", "-subj", subject)
            signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
            openssl(folder, "x509", "-req", "-in", f"{whose}.csr", *signed, "-out", f"{whose}.pem")
        yield folder


@pytest.fixture(scope="module")
def postgres_with_certificates(certificates: Path) -> Iterator[int]:
    """Start a PostgreSQL that lets in who has a certificate, and nobody else; yields its port."""
    files = {name: (certificates / name).read_bytes() for name in ("ca.pem", "server.pem", "server.key")}
    files["pg_hba.conf"] = b"hostssl all all 127.0.0.1/32 cert\nlocal all all trust\n"
    settings = {"ssl": "on", "ssl_ca_file": "ca.pem", "ssl_cert_file": "server.pem", "ssl_key_file": "server.key"}
    with own_postgres("loader", files=files, settings=settings) as address:
        yield address["port"]


@in_memory
def test_dbt_signs_in_with_a_key_that_is_on_no_disk(postgres_with_certificates: int, certificates: Path) -> None:
    key = (certificates / "client.key").read_text()
    settings = {
        "warehouse": "postgres",
        "schema": "main",
        "host": "127.0.0.1",
        "port": postgres_with_certificates,
        "user": "loader",
        "dbname": "postgres",
        "sslmode": "verify-full",
        "sslrootcert": str(certificates / "ca.pem"),
        "sslcert": str(certificates / "client.pem"),
        "sslkey_env": "CLIENT_KEY",
    }
    profile = profile_of("locked", PostgresTarget.model_validate(settings), {"CLIENT_KEY": key})

    (path,) = profile.child_environment().values()
    assert path.startswith("/proc/") and key not in profile.profiles_yml()
    assert check(profile).cause == ""


@in_memory
def test_only_the_user_can_read_the_file_and_asking_again_gives_the_same() -> None:
    path = path_of_key("-----BEGIN PRIVATE KEY-----")

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert Path(path).read_text() == "-----BEGIN PRIVATE KEY-----"
    assert path_of_key("-----BEGIN PRIVATE KEY-----") == path


@in_memory
def test_the_file_is_gone_when_the_process_was_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        path = Path(holder.stdout.readline().strip())
        assert path.read_text() == "-----BEGIN PRIVATE KEY-----"
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    assert not path.exists()
