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


def set_up_target(environment: dict[str, str], folder: Path, threads: int) -> None:
    """Save the blocks of a target `bench` on the DuckDB file bench.duckdb in a folder."""
    settings = {"warehouse": "duckdb", "path": str(folder / "bench.duckdb"), "schema": "main", "threads": threads}
    set_up_targets(environment, folder, {"bench": settings})


def set_up_targets(environment: dict[str, str], folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Save the blocks of targets, given with their settings by name."""
    targets = folder / "targets.yml"
    # What is measured is every node in Prefect, tests included.
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
    """Run an S3 server for the time of the block, point every client of it at that, and yield a bucket's address."""
    import logging
    import os

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    boto3.client("s3").create_bucket(Bucket="state")
    try:
        yield "s3://state/tributary"
    finally:
        server.stop()


@contextmanager
def prefect_server(environment: dict[str, str]) -> Iterator[str]:
    """Run a Prefect server of its own for the time of the block."""
    import urllib.request

    port = free_port()
    command = [shutil.which("prefect", path=str(Path(sys.executable).parent)) or "prefect", "server", "start"]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env={
            **environment,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            # Its pages ask port 4200 otherwise.
            "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(3000):
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()
