"""A Prefect server of a benchmark's own, and the target that is measured on it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def set_up_target(environment: dict[str, str], folder: Path, threads: int, task_runs: str = "all") -> None:
    """Save the blocks of a target `bench` on the DuckDB file bench.duckdb in a folder."""
    settings = {"warehouse": "duckdb", "path": str(folder / "bench.duckdb"), "schema": "main", "threads": threads}
    set_up_targets(environment, folder, {"bench": {**settings, "task_runs": task_runs}})


def set_up_targets(environment: dict[str, str], folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Save the blocks of targets, given with their settings by name."""
    targets = folder / "targets.yml"
    # What is measured is every node in Prefect, tests included, where nothing else is said.
    settings = {name: {"task_runs": "all", **each} for name, each in settings.items()}
    # JSON is YAML.
    targets.write_text(json.dumps({"profile": "bench", "default": next(iter(settings)), "targets": settings}))
    command = [sys.executable, "-m", "infrastructure.setup_profiles", "--blocks-only", "--targets-file", str(targets)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def bucket_of_its_own() -> Iterator[str]:
    """Run an S3 server for the time of the block, point every client of it at that, and yield a bucket's address.

    It is a process of its own, so that what it needs is no part of what is measured.
    """
    import os

    import boto3

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        wait_for(f"{url}/moto-api/")
        boto3.client("s3").create_bucket(Bucket="state")
        yield "s3://state/tributary"
    finally:
        server.terminate()
        server.wait()


def wait_for(url: str) -> None:
    """Wait until a server answers, up to ten minutes."""
    import urllib.request

    for _ in range(6000):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)


class Server:
    """A Prefect server that can be killed and started again."""

    def __init__(self, port: int, environment: Mapping[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}/api"
        self._port = port
        self._environment = {
            **environment,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            # Its pages ask port 4200 otherwise.
            "PREFECT_SERVER_UI_API_URL": self.url,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [shutil.which("prefect", path=str(Path(sys.executable).parent)) or "prefect", "server", "start"]
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self._port)],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(f"{self.url}/health")

    def restart(self) -> None:
        """Kill it, so that it forgets what it holds in memory, and start it again."""
        assert self._process
        self._process.kill()
        self._process.wait()
        self.start()

    def stop(self) -> None:
        """Stop it."""
        if self._process:
            self._process.terminate()
            self._process.wait()


@contextmanager
def server_on(port: int, environment: Mapping[str, str]) -> Iterator[Server]:
    """Run a Prefect server on a port for the time of the block."""
    server = Server(port, environment)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def prefect_server(environment: dict[str, str]) -> Iterator[str]:
    """Run a Prefect server of its own for the time of the block, and yield its address."""
    with server_on(free_port(), environment) as server:
        yield server.url
