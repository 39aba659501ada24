"""What the CronJob's command holds in memory: `python -m benchmarks.job_memory` says whether it fits 512 MiB.

Its last line is `fits_512_mib: 250 nodes yes, 1000 nodes yes`. Measured is what the process tree holds at its most,
pages that its processes share counted once, which is near to what a container's limit counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.projects import write_project
from benchmarks.server import prefect_server, set_up_target
from infrastructure.console import EntryCommand

LIMIT_MEBIBYTES = 512


@dataclass(frozen=True)
class Held:
    """What one run held at its most, in MiB."""

    nodes: int
    where: str
    mebibytes: float
    largest: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.nodes:>6}  {self.where:<16}{self.mebibytes:>6.0f}{self.largest:>17.0f}{self.seconds:>9.0f}"


@click.command(cls=EntryCommand)
@click.option("--nodes", "sizes", multiple=True, type=int, default=(250, 1000), show_default=True)
@click.option("--threads", default=4, show_default=True)
@click.option("--own-server/--no-own-server", default=True, help="Measure with a temporary Prefect server, too.")
def main(sizes: tuple[int, ...], threads: int, own_server: bool) -> None:
    """Measure the memory of the scheduled run, with a Prefect server elsewhere and with a temporary one in the pod."""
    held: list[Held] = []
    click.echo(f"{'nodes':>6}  {'Prefect server':<16}{'MiB':>6}{'largest process':>17}{'seconds':>9}")
    for nodes in sizes:
        with tempfile.TemporaryDirectory(prefix="job-memory-") as name:
            folder = Path(name)
            project = write_project(folder, nodes, threads)
            kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "TRIBUTARY_"))}
            environment = {**kept, "TRIBUTARY_STATE": str(folder / "state"), "PREFECT_HOME": str(folder / "prefect")}
            with prefect_server(environment) as api_url:
                there = environment | {"PREFECT_API_URL": api_url}
                set_up_target(there, folder, threads)
                held.append(_measured(nodes, "elsewhere", project, there))
                click.echo(str(held[-1]))
            if own_server:
                # The blocks stay in Prefect's folder, where the temporary server finds them.
                (folder / "bench.duckdb").unlink(missing_ok=True)
                alone = environment | {"PREFECT_SERVER_API_PORT": "1"}
                held.append(_measured(nodes, "in the pod", project, alone))
                click.echo(str(held[-1]))
    fits = (
        f"{each.nodes} nodes {'yes' if each.mebibytes <= LIMIT_MEBIBYTES else 'no'}"
        for each in held
        if each.where == "elsewhere"
    )
    click.echo(f"fits_{LIMIT_MEBIBYTES}_mib: {', '.join(fits)}")


def _measured(nodes: int, where: str, project: Path, environment: dict[str, str]) -> Held:
    command = ["-m", "flows", "run", "--target", "bench", "--project-dir", str(project), "--no-data"]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [sys.executable, *command, "--timeout-minutes", "60"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        most, largest = 0.0, 0.0
        while child.poll() is None:
            sizes = _sizes(child.pid)
            if sum(sizes) > most:
                most, largest = sum(sizes), max(sizes)
            time.sleep(0.1)
        if child.returncode:
            output.seek(0)
            raise click.ClickException(output.read().decode("utf-8", "replace")[-2000:])
    return Held(nodes, where, most, largest, time.perf_counter() - started)


def _sizes(pid: int) -> list[float]:
    """Return what each process of a tree holds, in MiB."""
    import psutil

    try:
        head = psutil.Process(pid)
        return [part.memory_full_info().pss / 2**20 for part in [head, *head.children(recursive=True)]]
    except psutil.Error:
        return [0.0]


if __name__ == "__main__":
    main()
