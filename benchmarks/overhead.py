"""What it costs to run dbt with every node in Prefect: this engine, and others, against bare `dbt build`.

`python -m benchmarks.overhead --nodes 250` prints a table of medians and ends in `engine/bare: 1.04`.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.projects import write_project
from benchmarks.server import prefect_server, set_up_target
from infrastructure.console import EntryCommand

if TYPE_CHECKING:
    pass

# The flow alone, from its start to its end, as the server sees it: what a scheduled run costs on a warm worker.
_ENGINE = """
import json, os, sys, time
from pathlib import Path
from flows.pipelines import tasks
from flows.engine.context.reporting import reporting_to
from flows.pipelines.full import dbt_full_pipeline

class Silent:
    def stage(self, text): pass
    def event(self, event): pass
    def note(self, text): print(text, file=sys.stderr)

with reporting_to(Silent()):
    started = time.perf_counter()
    result = dbt_full_pipeline(target="bench", project_dir=sys.argv[1], freshness=False)
    seconds = time.perf_counter() - started
assert len(result.build.nodes) == int(sys.argv[2]), len(result.build.nodes)
print(f"flow_seconds {seconds}")
"""

_SEPARATE = """
import subprocess, sys
from prefect import flow, task

@task(retries=2)
def dbt(verb, arguments):
    done = subprocess.run([arguments[0], verb, *arguments[1:]], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:])

@flow
def transform(arguments):
    dbt("run", arguments)
    dbt("test", arguments)

transform(sys.argv[1:])
"""

_RUNNER = """
import sys
from prefect import flow
from prefect_dbt import PrefectDbtRunner, PrefectDbtSettings

@flow
def transform():
    settings = PrefectDbtSettings(project_dir=sys.argv[1], profiles_dir=sys.argv[2], target_path=sys.argv[3])
    PrefectDbtRunner(settings=settings).invoke(["build"])

transform()
"""

_ORCHESTRATOR = """
import sys
from prefect import flow
from prefect_dbt import PrefectDbtSettings
from prefect_dbt.core._orchestrator import ExecutionMode, PrefectDbtOrchestrator

@flow
def transform():
    settings = PrefectDbtSettings(project_dir=sys.argv[1], profiles_dir=sys.argv[2], target_path=sys.argv[3])
    mode = ExecutionMode[sys.argv[4]]
    options = {"concurrency": 1} if mode is ExecutionMode.PER_NODE else {}
    PrefectDbtOrchestrator(settings=settings, execution_mode=mode, **options).run_build()

if __name__ == "__main__":
    transform()
"""


@dataclass
class Runs:
    """What was measured of one way of running dbt."""

    name: str
    wall_seconds: list[float] = field(default_factory=list[float])
    inner_seconds: list[float] = field(default_factory=list[float])
    memory_megabytes: list[float] = field(default_factory=list[float])
    failure: str = ""


@click.command(cls=EntryCommand)
@click.option("--nodes", default=250, show_default=True, help="Models and tests of the project.")
@click.option("--rounds", default=3, show_default=True, help="Each way is run so often, in turn.")
@click.option("--threads", default=4, show_default=True)
@click.option("--peers/--no-peers", default=False, help="Also prefect-dbt's ways; needs `uv sync --group blocks`.")
@click.option("--way", "wanted", multiple=True, metavar="NAME", help="Measure these ways only, and bare dbt.")
@click.option("--warm-up/--no-warm-up", default=True, help="Without, dbt parses the whole project in the first round.")
@click.option("--limit-seconds", default=600.0, show_default=True, help="A way that takes longer is left out.")
def main(
    nodes: int, rounds: int, threads: int, peers: bool, wanted: tuple[str, ...], warm_up: bool, limit_seconds: float
) -> None:
    """Compare ways of running one dbt project, interleaved, with medians."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        folder = Path(name)
        project = write_project(folder, nodes, threads)
        environment = {**os.environ, "TRIBUTARY_STATE": str(folder / "state"), "PREFECT_HOME": str(folder / "prefect")}
        environment["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        with prefect_server(environment) as api_url:
            environment["PREFECT_API_URL"] = api_url
            set_up_target(environment, folder, threads)
            ways = _ways(folder, project, nodes, peers)
            measured = [Runs(name) for name in ways if not wanted or name in ("bare", *wanted)]
            for round_number in range(0 if warm_up else 1, rounds + 1):
                for runs in measured:
                    # The first round warms dbt's partial parse and Python's byte code, and is not counted.
                    _measure(runs, ways[runs.name], folder, environment, limit_seconds, round_number > 0)
    _print(measured, nodes, threads, rounds)


def _ways(folder: Path, project: Path, nodes: int, peers: bool) -> dict[str, list[str]]:
    place = [str(project), str(folder)]
    at = ["--project-dir", str(project), "--profiles-dir", str(folder)]
    python = sys.executable
    # As a person types it, not the engine's child process: that one writes its log in a cheaper way.
    dbt = shutil.which("dbt", path=str(Path(python).parent)) or "dbt"
    ways = {
        "bare": [dbt, "build", *at, "--target-path", str(folder / "bare")],
        "engine": [python, "-c", _ENGINE, str(project), str(nodes)],
        "run, then test": [python, "-c", _SEPARATE, dbt, *at, "--target-path", str(folder / "separate")],
    }
    if peers:
        scripts = folder / "orchestrator.py"
        scripts.write_text(_ORCHESTRATOR)
        ways["PrefectDbtRunner"] = [python, "-c", _RUNNER, *place, str(folder / "runner")]
        ways["orchestrator per wave"] = [python, str(scripts), *place, str(folder / "wave"), "PER_WAVE"]
        ways["orchestrator per node"] = [python, str(scripts), *place, str(folder / "node"), "PER_NODE"]
    return ways


def _measure(
    runs: Runs, argv: Sequence[str], folder: Path, environment: dict[str, str], limit_seconds: float, counts: bool
) -> None:
    if runs.failure:
        return
    (folder / "bench.duckdb").unlink(missing_ok=True)
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(argv, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=Path.cwd())
        memory = 0.0
        while child.poll() is None and time.perf_counter() - started < limit_seconds:
            memory = max(memory, _tree_megabytes(child.pid))
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        if child.poll() is None:
            child.kill()
            child.wait()
            runs.failure = f"over {limit_seconds:.0f} s"
            return
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    if child.returncode:
        runs.failure = "failed"
        click.echo(f"{runs.name} failed:\n{said[-3000:]}", err=True)
    elif counts:
        inner = [float(line.split()[1]) for line in said.splitlines() if line.startswith("flow_seconds ")]
        runs.wall_seconds.append(seconds)
        runs.inner_seconds += inner
        runs.memory_megabytes.append(memory)


def _tree_megabytes(pid: int) -> float:
    """Return what a process and its children hold in memory that is their own, pages shared by them counted once."""
    import psutil

    try:
        process = psutil.Process(pid)
        return sum(part.memory_full_info().pss for part in [process, *process.children(recursive=True)]) / 1e6
    except psutil.Error:
        return 0.0


def _print(measured: Sequence[Runs], nodes: int, threads: int, rounds: int) -> None:
    bare = measured[0]
    base = statistics.median(bare.wall_seconds)
    base_memory = statistics.median(bare.memory_megabytes)
    click.echo(
        f"{nodes} nodes, {threads} threads, median of {rounds} rounds, {os.cpu_count()} cores shared with the server"
    )
    click.echo(f"{'':<24}{'process s':>10}{'/ bare':>8}{'flow s':>8}{'/ bare':>8}{'MB':>8}{'/ bare':>8}")
    for runs in measured:
        if runs.failure or not runs.wall_seconds:
            click.echo(f"{runs.name:<24}{runs.failure:>10}")
            continue
        wall = statistics.median(runs.wall_seconds)
        memory = statistics.median(runs.memory_megabytes)
        inner = f"{statistics.median(runs.inner_seconds):>8.1f}" if runs.inner_seconds else f"{'':>8}"
        ratio = f"{statistics.median(runs.inner_seconds) / base:>8.2f}" if runs.inner_seconds else f"{'':>8}"
        click.echo(
            f"{runs.name:<24}{wall:>10.1f}{wall / base:>8.2f}{inner}{ratio}{memory:>8.0f}{memory / base_memory:>8.2f}"
        )
    engine = next((runs for runs in measured if runs.name == "engine"), None)
    if engine and engine.inner_seconds:
        click.echo(f"engine/bare: {statistics.median(engine.inner_seconds) / base:.2f}")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
