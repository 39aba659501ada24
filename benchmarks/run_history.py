"""What writing the history of a finished run costs, on the real manifest of a project of that size.

`python -m benchmarks.run_history --nodes 5000` prints medians and ends in `history: 1.23 s`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from benchmarks.projects import write_project
from flows.engine.artifacts.manifest_file import load_manifest
from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.context.command import DbtCommand
from flows.engine.process.engines import OWN_DBT
from flows.history.record import record
from flows.history.store import URL_VARIABLE, HistoryStore
from infrastructure.console import EntryCommand
from infrastructure.profiles import Profile

_THREADS = 8


def made_result(target_path: Path, started_at: datetime) -> DbtResult:
    """Return the result of a build of every node of a manifest: each takes 0.1 s, on one of eight threads."""
    nodes: list[NodeResult] = []
    for number, node in enumerate(load_manifest(target_path / "manifest.json").nodes.values()):
        begun = started_at + timedelta(seconds=0.1 * (number // _THREADS))
        nodes.append(
            NodeResult(
                unique_id=node.unique_id,
                name=node.name,
                resource_type=node.resource_type,
                materialized=node.materialized,
                status="pass" if node.resource_type == "test" else "success",
                started_at=begun,
                finished_at=begun + timedelta(seconds=0.1),
                relation=node.relation,
                adapter_response={"rows_affected": number, "query_id": f"query-{number}"},
                thread=f"Thread-{number % _THREADS + 1}",
                compile_seconds=0.01,
                execute_seconds=0.09,
            )
        )
    ended = nodes[-1].finished_at
    run = target_path.parent / "runs" / f"{started_at:%Y%m%dT%H%M%S.%fZ}-build-made"
    return DbtResult("dbt build", "dev", tuple(nodes), started_at, ended, target_path, run)


@click.command(cls=EntryCommand)
@click.option("--nodes", type=click.IntRange(10), default=5000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def main(nodes: int, rounds: int) -> None:
    """Measure what is added to the end of a run, and what a question to a hundred such runs costs."""
    with tempfile.TemporaryDirectory(prefix="tributary-history-") as name:
        folder = Path(name)
        place = write_project(folder, nodes)
        target_path = folder / "state" / "target"
        parse = [*OWN_DBT, "parse", "--project-dir", str(place), "--profiles-dir", str(folder)]
        environment = {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
        subprocess.run([*parse, "--target-path", str(target_path)], check=True, capture_output=True, env=environment)
        os.environ[URL_VARIABLE] = str(folder / "history")
        store = HistoryStore(str(folder / "history"))
        profile = Profile("dev", "bench", {"type": "duckdb"}, {})
        seconds: list[float] = []
        for number in range(rounds):
            result = made_result(target_path, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number))
            begun = time.perf_counter()
            record(result, DbtCommand("build"), profile)
            seconds.append(time.perf_counter() - begun)
        files = store.files()
        if len(files) != rounds:
            raise click.ClickException(f"{len(files)} files were written for {rounds} runs")
        begun = time.perf_counter()
        with store.reading() as connection:
            connection.execute("select name, median(seconds) from nodes group by 1").fetchall()
        asked = time.perf_counter() - begun
        size = statistics.mean(Path(file).stat().st_size for file in files)
        click.echo(f"{nodes:,} nodes, {rounds} runs, {size / 1024:,.0f} kB per file")
        click.echo(f"median duration per node over {rounds} runs: {asked:.2f} s")
        click.echo(f"history: {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
