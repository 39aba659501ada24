"""Whether splitting one project over workers is worth it: `python -m benchmarks.split_build` on PostgreSQL.

Its last line is `split/whole: 0.81`: below 1 it helped. With `--model-seconds` each model waits in the warehouse.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.fleet_system import databases
from benchmarks.server import prefect_server
from infrastructure.console import EntryCommand


@click.command(cls=EntryCommand)
@click.option("--domains", default=4, show_default=True)
@click.option("--models", default=100, show_default=True, help="Of each domain, in chains of four.")
@click.option("--model-seconds", default=0.0, show_default=True, help="How long the warehouse takes for each.")
@click.option("--threads", default=4, show_default=True, help="Of each dbt process.")
@click.option("--workers", default=2, show_default=True, help="Parts at once.")
@click.option("--rounds", default=3, show_default=True)
def main(domains: int, models: int, model_seconds: float, threads: int, workers: int, rounds: int) -> None:
    """Compare one dbt process, one with all the threads, and a process per domain; the first round warms up."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="split-") as name, databases() as (server, _, warehouse):
        folder = Path(name)
        project = _write_project(folder, domains, models, model_seconds)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "TRIBUTARY_"))}
        environment = {**kept, "PREFECT_HOME": str(folder / "prefect"), "TRIBUTARY_STATE": str(folder / "state")}
        with prefect_server(environment) as api_url:
            environment["PREFECT_API_URL"] = api_url
            _register(server, warehouse, folder, environment, {"few": threads, "many": threads * workers})
            common = ["--project-dir", str(project)]
            ways = {
                f"whole, {threads} threads": ["run", "--target", "few", "--no-data", *common],
                f"whole, {threads * workers} threads": ["run", "--target", "many", "--no-data", *common],
                f"split, {workers} workers of {threads} threads": [
                    *("split", "--target", "few", "--by", "group", "--workers", str(workers)),
                    *common,
                ],
            }
            for number in range(rounds + 1):
                for way, words in ways.items():
                    taken = _run(words, environment)
                    if number:
                        seconds.setdefault(way, []).append(taken)
    click.echo(
        f"{domains} domains of {models} models, {model_seconds:g} s each in the warehouse; median of {rounds} rounds, "
        f"{os.cpu_count()} cores shared with PostgreSQL and Prefect"
    )
    medians = {way: statistics.median(taken) for way, taken in seconds.items()}
    for way, median in medians.items():
        click.echo(f"{way:<34}{median:>8.1f} s")
    *whole, split = medians.values()
    click.echo(f"split/whole: {split / min(whole):.2f}")


def _run(words: Sequence[str], environment: Mapping[str, str]) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "flows", *words]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(done.stdout[-2000:] + done.stderr[-2000:])
    return time.perf_counter() - started


def _write_project(folder: Path, domains: int, models: int, model_seconds: float) -> Path:
    """Write a project of domains that do not stand on each other, each of chains of four models."""
    project = folder / "project"
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text(
        "name: parts\nversion: '1.0'\nprofile: bench\nflags: {send_anonymous_usage_stats: false}\n"
        "models: {parts: {+materialized: table}}\n"
    )
    wait = f", pg_sleep({model_seconds}) as waited" if model_seconds else ""
    entries: list[dict[str, Any]] = []
    for domain in range(domains):
        for number in range(models):
            model = f"d{domain}_m{number}"
            above = f" from {{{{ ref('d{domain}_m{number - 1}') }}}}" if number % 4 else ""
            (project / "models" / f"{model}.sql").write_text(f"select 1 as id{wait}{above}\n")
            entries.append({"name": model, "config": {"group": f"domain_{domain}"}})
    owner = {"name": "Somebody", "email": "somebody@example.org"}
    groups = [{"name": f"domain_{number}", "owner": owner} for number in range(domains)]
    (project / "models" / "models.yml").write_text(json.dumps({"version": 2, "groups": groups, "models": entries}))
    return project


def _register(
    server: Mapping[str, Any], warehouse: str, folder: Path, environment: Mapping[str, str], targets: Mapping[str, int]
) -> None:
    place = {name: server[name] for name in ("host", "port", "user")}
    shared = {"warehouse": "postgres", **place, "password_env": "BENCH_PASSWORD", "dbname": warehouse}
    declared = {name: {**shared, "schema": name, "threads": threads} for name, threads in targets.items()}
    path = folder / "targets.yml"
    path.write_text(json.dumps({"profile": "bench", "default": "few", "targets": declared}))
    command = [sys.executable, "-m", "infrastructure.setup_profiles", "--blocks-only", "--targets-file", str(path)]
    subprocess.run(
        command,
        env={**environment, "BENCH_PASSWORD": server["password"] or "none"},
        check=True,
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
