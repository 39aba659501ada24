"""What a run with `--changed` costs when nothing changed, or a comment alone, against a full build of the same project.

`python -m benchmarks.changed --nodes 1000` prints them with medians and ends in `changed/full: 0.08`. That neither of
the two builds anything is checked.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.projects import write_project
from benchmarks.server import prefect_server, set_up_target
from infrastructure.console import EntryCommand

# The flow alone, from its start to its end: what a scheduled run costs on a warm worker.
_RUN = """
import sys, time
from flows.engine.context.reporting import reporting_to
from flows.pipelines.full import dbt_full_pipeline

class Silent:
    def stage(self, text): pass
    def event(self, event): pass
    def note(self, text): pass

changed = sys.argv[3] != "full"
with reporting_to(Silent()):
    started = time.perf_counter()
    result = dbt_full_pipeline(target="bench", project_dir=sys.argv[1], freshness=False, changed=changed)
    seconds = time.perf_counter() - started
built = len(result.build.nodes)
assert built == (0 if changed else int(sys.argv[2])), built
print(f"flow_seconds {seconds}")
"""


@click.command(cls=EntryCommand)
@click.option("--nodes", default=1000, show_default=True, help="Models and tests of the project.")
@click.option("--rounds", default=3, show_default=True, help="Both are run so often, in turn.")
@click.option("--threads", default=4, show_default=True)
def main(nodes: int, rounds: int, threads: int) -> None:
    """Compare a full build with runs of `--changed` that have nothing to build."""
    flow_seconds: dict[str, list[float]] = {"full": [], "changed": [], "a comment": []}
    process_seconds: dict[str, list[float]] = {way: [] for way in flow_seconds}
    with tempfile.TemporaryDirectory(prefix="changed-") as name:
        folder = Path(name)
        project = write_project(folder, nodes, threads)
        environment = {**os.environ, "TRIBUTARY_STATE": str(folder / "state"), "PREFECT_HOME": str(folder / "prefect")}
        environment["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        with prefect_server(environment) as api_url:
            environment["PREFECT_API_URL"] = api_url
            set_up_target(environment, folder, threads)
            for round_number in range(rounds + 1):
                for way in flow_seconds:
                    if way == "a comment":
                        # A tenth of the project is downstream of it.
                        with (project / "models" / "model_0.sql").open("a") as model:
                            model.write(f"-- looked at {round_number}\n")
                    inner, outer = _run(project, nodes, way, environment)
                    # The first round parses from nothing, and is not counted.
                    if round_number:
                        flow_seconds[way].append(inner)
                        process_seconds[way].append(outer)
    _print(nodes, rounds, threads, flow_seconds, process_seconds)


def _run(project: Path, nodes: int, way: str, environment: dict[str, str]) -> tuple[float, float]:
    started = time.perf_counter()
    command = [sys.executable, "-c", _RUN, str(project), str(nodes), way]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise click.ClickException(f"the run ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return next(float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("flow_seconds")), seconds


def _print(
    nodes: int, rounds: int, threads: int, flow_seconds: dict[str, list[float]], process_seconds: dict[str, list[float]]
) -> None:
    flow = {way: statistics.median(seconds) for way, seconds in flow_seconds.items()}
    process = {way: statistics.median(seconds) for way, seconds in process_seconds.items()}
    click.echo(f"{nodes} nodes, nothing changed, {threads} threads, median of {rounds} rounds, {os.cpu_count()} cores")
    click.echo(f"{'':<12}{'flow s':>8}{'process s':>11}")
    for way in flow:
        click.echo(f"{way:<12}{flow[way]:>8.2f}{process[way]:>11.2f}")
    click.echo(f"whole process, imports included: {process['changed'] / process['full']:.2f}")
    click.echo(f"changed/full: {flow['changed'] / flow['full']:.2f}")


if __name__ == "__main__":
    main()
