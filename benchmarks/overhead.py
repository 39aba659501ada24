"""What it costs to run dbt with every node in Prefect: this engine, and others, against bare `dbt build`.

`python -m benchmarks.overhead --engine 2` prints a table of medians and ends in `engine/bare: 3.1` and, for dbt 2, in
`dbt2 flow_over_bare_seconds: 1.9 process_over_bare_seconds: 3.4`.
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
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from benchmarks.engines import NAMES, EngineMissing, have
from benchmarks.projects import write_project
from benchmarks.server import bucket_of_its_own, prefect_server, set_up_target
from infrastructure.console import EntryCommand
from infrastructure.program import PROGRAM_VARIABLE
from infrastructure.targets.settings import TaskRuns

if TYPE_CHECKING:
    import psutil

# The flow alone, from its start to its end, as the server sees it: what a scheduled run costs on a warm worker.
_ENGINE = """
import sys, time
from flows.engine.context.reporting import reporting_to
from flows.pipelines.full import dbt_full_pipeline

class Silent:
    def stage(self, text): pass
    def event(self, event): pass
    def note(self, text): print(text, file=sys.stderr)

with reporting_to(Silent()):
    started, worked = time.perf_counter(), time.process_time()
    result = dbt_full_pipeline(target="bench", project_dir=sys.argv[1], freshness=False)
    seconds, own = time.perf_counter() - started, time.process_time() - worked
assert len(result.build.nodes) == int(sys.argv[2]), len(result.build.nodes)
print(f"flow_seconds {seconds} {own}")
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


_IN_A_BUCKET = "engine, state in s3"
# A server that used less than this share of a core for so long has worked off what it was sent.
_IDLE_SHARE = 0.05
_IDLE_SECONDS = 1.0
_SETTLED_SECONDS = 120.0


@dataclass
class Runs:
    """What was measured of one way of running dbt.

    Attributes:
        processor_seconds: of the process and all its children.
        own_seconds: processor time of the flow's own process, from the start of the flow to its end.
        server_seconds: processor time of the Prefect server, until it has worked off what it was sent.
    """

    name: str
    wall_seconds: list[float] = field(default_factory=list[float])
    inner_seconds: list[float] = field(default_factory=list[float])
    processor_seconds: list[float] = field(default_factory=list[float])
    own_seconds: list[float] = field(default_factory=list[float])
    server_seconds: list[float] = field(default_factory=list[float])
    memory_megabytes: list[float] = field(default_factory=list[float])
    failure: str = ""


@dataclass(frozen=True)
class Round:
    """How one round is measured."""

    is_timed: bool
    # Looking at the memory of a process costs it time.
    with_memory: bool
    limit_seconds: float


@click.command(cls=EntryCommand)
@click.option("--engine", type=click.Choice(NAMES), help="Which dbt; that of Tributary's own environment without it.")
@click.option("--nodes", default=250, show_default=True, help="Models and tests of the project.")
@click.option("--rounds", default=3, show_default=True, help="Each way is run so often, in turn.")
@click.option("--threads", default=4, show_default=True)
@click.option(
    "--state",
    type=click.Choice(["folder", "s3"]),
    default="folder",
    show_default=True,
    help="With s3, the flow is measured a second time, with its state in a bucket of a server of this machine.",
)
@click.option(
    "--real-time",
    is_flag=True,
    help="What is measured comes before everything else on the machine, and its servers do with `chrt -f 9` before the "
    "command; needs root.",
)
@click.option(
    "--task-runs",
    type=click.Choice(get_args(TaskRuns)),
    default="all",
    show_default=True,
    help="Which nodes have one; a target has `models` unless it says otherwise.",
)
@click.option("--peers/--no-peers", default=False, help="Also prefect-dbt's ways; needs `uv sync --extra blocks`.")
@click.option("--way", "wanted", multiple=True, metavar="NAME", help="Measure these ways only, and bare dbt.")
@click.option("--warm-up/--no-warm-up", default=True, help="Without, dbt parses the whole project in the first round.")
@click.option("--limit-seconds", default=600.0, show_default=True, help="A way that takes longer is left out.")
def main(  # noqa: PLR0913  (its options)
    engine: str | None,
    nodes: int,
    rounds: int,
    threads: int,
    state: str,
    real_time: bool,
    task_runs: TaskRuns,
    peers: bool,
    wanted: tuple[str, ...],
    warm_up: bool,
    limit_seconds: float,
) -> None:
    """Compare ways of running one dbt project, interleaved, with medians."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overhead-")))
        bucket = stack.enter_context(bucket_of_its_own()) if state == "s3" else None
        project = write_project(folder, nodes, threads)
        environment = {**os.environ, "TRIBUTARY_STATE": str(folder / "state"), "PREFECT_HOME": str(folder / "prefect")}
        environment["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        if environment.pop("PYTHONDONTWRITEBYTECODE", None):
            # Each process would compile all that it imports, for more than a second, as it does on no user's machine.
            environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        with prefect_server(environment) as api_url:
            environment["PREFECT_API_URL"] = api_url
            set_up_target(environment, folder, threads, task_runs)
            dbt, is_own = _dbt(engine, environment)
            ways = _ways(folder, project, nodes, dbt, peers and is_own)
            if bucket:
                # The same process, told of another place.
                where = [f"TRIBUTARY_STATE={bucket}", f"TRIBUTARY_STATE_COPY={folder / 'copy'}"]
                ways[_IN_A_BUCKET] = ["env", *where, *ways["engine"]]
            if real_time:
                ways = {name: ["chrt", "-f", "10", *argv] for name, argv in ways.items()}
            measured = [Runs(name) for name in ways if not wanted or name in ("bare", *wanted)]
            # The first round warms dbt's partial parse and Python's byte code; the last one looks at the memory.
            plan = [Round(True, not warm_up, limit_seconds)] * rounds
            if warm_up:
                plan = [Round(False, False, limit_seconds), *plan, Round(False, True, limit_seconds)]
            for how in plan:
                for runs in measured:
                    _measure(runs, ways[runs.name], folder, environment, how)
    what = f"{nodes} nodes, {threads} threads, task runs: {task_runs}"
    _print(measured, f"dbt {engine or version('dbt-core')}, {what}, median of {rounds} rounds")
    _print_ends(measured, engine)


def _dbt(engine: str | None, environment: dict[str, str]) -> tuple[str, bool]:
    """Return the program of a dbt, whether it is that of this environment, and have runs use it."""
    own = version("dbt-core")
    if engine is None or own.startswith(f"{engine}."):
        # As a person types it, not the engine's child process: that one writes its log in a cheaper way.
        return shutil.which("dbt", path=str(Path(sys.executable).parent)) or "dbt", True
    try:
        found = have(engine)
    except EngineMissing as exc:
        raise click.ClickException(str(exc)) from exc
    if "duckdb" in found.without:
        raise click.ClickException(found.without["duckdb"])
    environment |= {**found.environment, PROGRAM_VARIABLE: found.program}
    return found.program, False


def _ways(folder: Path, project: Path, nodes: int, dbt: str, peers: bool) -> dict[str, list[str]]:
    place = [str(project), str(folder)]
    at = ["--project-dir", str(project), "--profiles-dir", str(folder)]
    python = sys.executable
    ways = {
        "bare": [dbt, "build", *at, "--target-path", str(folder / "bare")],
        "engine": [python, "-c", _ENGINE, str(project), str(nodes)],
        # From Enter to prompt.
        "command": [
            *(python, "-m", "flows", "run", "--target", "bench", "--project-dir", str(project), "--no-freshness"),
        ],
        "run, then test": [python, "-c", _SEPARATE, dbt, *at, "--target-path", str(folder / "separate")],
    }
    if peers:
        scripts = folder / "orchestrator.py"
        scripts.write_text(_ORCHESTRATOR)
        ways["PrefectDbtRunner"] = [python, "-c", _RUNNER, *place, str(folder / "runner")]
        ways["orchestrator per wave"] = [python, str(scripts), *place, str(folder / "wave"), "PER_WAVE"]
        ways["orchestrator per node"] = [python, str(scripts), *place, str(folder / "node"), "PER_NODE"]
    return ways


def _measure(runs: Runs, argv: Sequence[str], folder: Path, environment: dict[str, str], how: Round) -> None:
    if runs.failure:
        return
    (folder / "bench.duckdb").unlink(missing_ok=True)
    server = _server()
    before = _settled_seconds(server)
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        child = subprocess.Popen(argv, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=Path.cwd())
        memory = 0.0
        while how.with_memory and child.poll() is None and time.perf_counter() - started < how.limit_seconds:
            memory = max(memory, _tree_megabytes(child.pid))
            time.sleep(0.1)
        try:
            child.wait(max(0.0, started + how.limit_seconds - time.perf_counter()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            runs.failure = f"over {how.limit_seconds:.0f} s"
            return
        seconds = time.perf_counter() - started
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    if child.returncode:
        runs.failure = "failed"
        click.echo(f"{runs.name} failed:\n{said[-3000:]}", err=True)
        return
    if how.with_memory:
        runs.memory_megabytes.append(memory)
    if how.is_timed:
        inner = [line.split()[1:] for line in said.splitlines() if line.startswith("flow_seconds ")]
        runs.wall_seconds.append(seconds)
        runs.processor_seconds.append(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)
        runs.inner_seconds += [float(wall) for wall, _ in inner]
        runs.own_seconds += [float(own) for _, own in inner]
        runs.server_seconds.append(_settled_seconds(server) - before)


def _server() -> psutil.Process:
    """Return this benchmark's Prefect server."""
    import psutil

    return next(child for child in psutil.Process().children() if "server" in child.cmdline())


def _settled_seconds(server: psutil.Process) -> float:
    """Wait until the server has worked off what it was sent, and return the processor time that it has used."""
    used, until = _processor_seconds(server), time.perf_counter() + _SETTLED_SECONDS
    while time.perf_counter() < until:
        time.sleep(_IDLE_SECONDS)
        last, used = used, _processor_seconds(server)
        if used - last < _IDLE_SHARE * _IDLE_SECONDS:
            break
    return used


def _processor_seconds(server: psutil.Process) -> float:
    times = [part.cpu_times() for part in (server, *server.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _tree_megabytes(pid: int) -> float:
    """Return what a process and its children hold in memory that is their own, pages shared by them counted once."""
    import psutil

    try:
        process = psutil.Process(pid)
        return sum(part.memory_full_info().pss for part in [process, *process.children(recursive=True)]) / 1e6
    except psutil.Error:
        return 0.0


def _print(measured: Sequence[Runs], title: str) -> None:
    bare = measured[0]
    base, base_memory = _median(bare.wall_seconds), _median(bare.memory_megabytes)
    click.echo(f"{title}, {os.cpu_count()} cores shared with the server, load {os.getloadavg()[0]:.1f}")
    names = ("process s", "/ bare", "CPU s", "flow s", "/ bare", "own CPU s", "server CPU s", "MB", "/ bare")
    click.echo(f"{'':<22}" + "".join(f"{name:>{max(8, len(name) + 2)}}" for name in names))
    for runs in measured:
        if runs.failure or not runs.wall_seconds:
            click.echo(f"{runs.name:<22}{runs.failure:>11}")
            continue
        wall, flow, memory = (_median(each) for each in (runs.wall_seconds, runs.inner_seconds, runs.memory_megabytes))
        figures = [
            *(wall, wall / base, _median(runs.processor_seconds), flow, flow / base),
            *(_median(runs.own_seconds), _median(runs.server_seconds), memory, memory / base_memory),
        ]
        cells = [
            f"{'' if figure != figure else format(figure, '.0f' if name == 'MB' else '.2f'):>{max(8, len(name) + 2)}}"
            for name, figure in zip(names, figures, strict=True)
        ]
        click.echo(f"{runs.name:<22}" + "".join(cells))


def _print_ends(measured: Sequence[Runs], engine: str | None) -> None:
    """Print the lines that are compared with those of other days."""
    by_name = {runs.name: runs for runs in measured if not runs.failure}
    bare, flow, command = (by_name.get(name, Runs(name)) for name in ("bare", "engine", "command"))
    base, seconds = _median(bare.wall_seconds), _median(flow.inner_seconds)
    if flow.inner_seconds:
        click.echo(f"engine/bare: {seconds / base:.2f}")
    if (bucket := by_name.get(_IN_A_BUCKET)) and flow.inner_seconds:
        elsewhere = _median(bucket.inner_seconds)
        click.echo(f"{_IN_A_BUCKET}/bare: {elsewhere / base:.3f} less engine/bare: {(elsewhere - seconds) / base:.3f}")
    if engine == "2" and flow.inner_seconds and command.wall_seconds:
        over = _median(command.wall_seconds) - base
        click.echo(f"dbt2 flow_over_bare_seconds: {seconds - base:.2f} process_over_bare_seconds: {over:.2f}")


def _median(figures: Sequence[float]) -> float:
    """Return the median; not a number where nothing was measured."""
    return statistics.median(figures) if figures else float("nan")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
