"""A Prefect server of a benchmark's own, and the target that is measured on it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def set_up_target(environment: dict[str, str], folder: Path, threads: int) -> None:
    """Save the blocks of a target `bench` on the DuckDB file bench.duckdb in a folder."""
    targets = folder / "targets.yml"
    targets.write_text(
        "profile: bench\ndefault: bench\ntargets:\n  bench:\n    warehouse: duckdb\n"
        f"    path: {folder / 'bench.duckdb'}\n    schema: main\n    threads: {threads}\n"
    )
    command = [sys.executable, "-m", "infrastructure.setup_profiles", "--blocks-only", "--targets-file", str(targets)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def prefect_server(environment: dict[str, str]) -> Iterator[str]:
    """Run a Prefect server of its own for the time of the block."""
    import socket
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [shutil.which("prefect", path=str(Path(sys.executable).parent)) or "prefect", "server", "start"]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env={**environment, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
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
