"""Local servers that speak the protocols of Snowflake and BigQuery, each in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.processes import free_port, wait_until

HERE = Path(__file__).parent
PROJECT = "demo-project"
PASSPHRASE = "right-passphrase"


def private_key(of_user: bool = False, passphrase: str | None = None) -> str:
    """Return a new private key in PEM, or the one of the user that the local Snowflake knows."""
    key = _user_key() if of_user else rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


@cache
def _user_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _public_key() -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return _user_key().public_key().public_bytes(serialization.Encoding.PEM, form)


@contextmanager
def snowflake_server(log: Path) -> Iterator[dict[str, Any]]:
    """Run a local Snowflake for the time of the block; yields dbt's output for it."""
    port = free_port()
    command = ["snowflake_server.py", "--port", str(port), "--public-key", str(log.with_name("user.pub"))]
    log.with_name("user.pub").write_bytes(_public_key())
    with _running(command, f"http://127.0.0.1:{port}/statements", log):
        yield {
            "type": "snowflake",
            "account": "local",
            "host": "127.0.0.1",
            "port": port,
            "protocol": "http",
            "user": "builder",
            "password": "right",
            "role": "TRANSFORMER",
            "warehouse": "WH",
            "database": "ANALYTICS",
            "schema": "dev",
            "threads": 4,
        }


@contextmanager
def bigquery_server(log: Path) -> Iterator[dict[str, Any]]:
    """Run a local BigQuery for the time of the block; yields dbt's output for it."""
    port = free_port()
    command = ["bigquery_server.py", "start", "--rest-port", str(port), "--grpc-port", str(free_port())]
    command += ["--project", PROJECT, "--log-level", "warning"]
    with _running(command, f"http://127.0.0.1:{port}/bigquery/v2/projects/{PROJECT}/datasets", log):
        yield {
            "type": "bigquery",
            # A token that is never refreshed: the server asks for none.
            "method": "oauth-secrets",
            "token": "not-looked-at",
            "project": PROJECT,
            "schema": "dev",
            "location": "US",
            "threads": 4,
            "api_endpoint": f"http://127.0.0.1:{port}",
            "job_retries": 0,
            # Of a busy machine; after it, the client would send the same statement again.
            "job_execution_timeout_seconds": 600,
        }


@contextmanager
def _running(command: list[str], address: str, log: Path) -> Iterator[None]:
    uv = shutil.which("uv") or "uv"
    with log.open("w") as written:
        server = subprocess.Popen(
            [uv, "run", "--no-project", "--script", str(HERE / command[0]), *command[1:]],
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def answers() -> bool:
        if server.poll() is not None:
            raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()[-2000:]}")
        with suppress(urllib.error.URLError, ConnectionError):
            return urllib.request.urlopen(address, timeout=5).status == 200
        return False

    try:
        wait_until(answers, f"{command[0]} answers", 180)
        yield
    finally:
        # uv hands SIGTERM on to the server.
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
