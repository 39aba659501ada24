"""Kill runs at random moments, resume them, and count what was lost or done twice.

`python -m benchmarks.recovery --kills 100` ends in `lost: 0 doubled: 0 of 100 kills`. The warehouse itself is the
witness: every model writes down that it ran, inside its own transaction, and half of them only ever add rows, so that
one which runs twice holds its rows twice.

What nobody but the warehouse can know is counted apart: a model that was committed in the instant before the kill, of
which dbt had not yet said so. It runs again, and `doubled` counts those of which dbt had said so.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from infrastructure.console import EntryCommand

# No Prefect in the way: what is measured is the engine's own record. The child is started as in a flow.
_RUN = """
import sys, uuid
from pathlib import Path
from flows.engine.command import DbtCommand
from flows.engine.lock import one_writer
from flows.engine.project import read_project
from flows.engine.reporting import reporting_to
from flows.engine.run import run_dbt
from infrastructure.profiles import Profile

class Silent:
    def stage(self, text): pass
    def event(self, event): pass
    def note(self, text): pass

output = {"type": "duckdb", "path": sys.argv[2], "schema": "main", "threads": 4}
with reporting_to(Silent()), one_writer("bench", holder="benchmark"):
    result = run_dbt(DbtCommand("build"), read_project(sys.argv[1]), Profile("bench", "bench", output, {}),
                     uuid.uuid4().hex, resume=sys.argv[3] == "resume")
print(len(result.nodes), "nodes", result.counts())
"""

# Of every model, so that one which added its rows twice has more.
ROWS = 20_000
# Who is killed: the flow process, its dbt child, or both at once.
_VICTIMS = ("flow", "dbt", "both")


@dataclass
class Tally:
    """What the kills came to."""

    lost: int = 0
    doubled: int = 0
    unreported: int = 0
    unresumed: int = 0
    resume_seconds: list[float] = field(default_factory=list[float])
    full_seconds: list[float] = field(default_factory=list[float])
    killed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_VICTIMS, 0))


@click.command(cls=EntryCommand)
@click.option("--kills", default=100, show_default=True)
@click.option("--models", default=40, show_default=True)
@click.option("--seed", default=1, show_default=True, help="Of the moments and the victims.")
def main(kills: int, models: int, seed: int) -> None:
    """Kill, resume, count."""
    chance = random.Random(seed)
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="recovery-") as name:
        folder = Path(name)
        project = _write_project(folder, models)
        environment = {**os.environ, "TRIBUTARY_STATE": str(folder / "state")}
        warehouse = folder / "bench.duckdb"
        _fresh(warehouse)
        for _ in range(4):
            _fresh(warehouse)
            tally.full_seconds.append(_run(project, warehouse, environment, "full"))
        # The first one had to parse.
        tally.full_seconds.pop(0)
        while (number := sum(tally.killed.values())) < kills:
            _fresh(warehouse)
            victim = _VICTIMS[number % len(_VICTIMS)]
            # By what has happened and not by the clock: a busy machine must not move the kills out of the run.
            after_nodes, after_seconds = chance.randrange(-1, models), chance.uniform(0.0, 0.1)
            if not _kill(project, warehouse, environment, victim, after_nodes, after_seconds):
                continue
            reported = _reported(environment)
            if reported is None:
                continue
            tally.killed[victim] += 1
            unreported = _committed(warehouse).keys() - reported
            tally.resume_seconds.append(_run(project, warehouse, environment, "resume", tally))
            _count(warehouse, models, tally, unreported)
            click.echo(f"{number + 1} of {kills}: lost {tally.lost}, doubled {tally.doubled}", err=True)
    _print(tally, kills, models)


def _write_project(folder: Path, models: int) -> Path:
    project = folder / "project"
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text(
        "name: bench\nversion: '1.0'\nprofile: bench\nflags: {send_anonymous_usage_stats: false}\n"
        "models:\n  bench:\n    +materialized: table\n"
        "    +pre-hook: \"insert into main.witness values ('{{ this.name }}')\"\n"
    )
    for number in range(models):
        above = f"{{{{ ref('model_{number - 6}') }}}}" if number >= 6 else f"range({ROWS}) as source(id)"
        adds = "{{ config(materialized='incremental', incremental_strategy='append') }}\n" if number % 2 else ""
        sql = f"{adds}select id from {above} order by md5(id::varchar) limit {ROWS}\n"
        (project / "models" / f"model_{number}.sql").write_text(sql)
    return project


def _fresh(warehouse: Path) -> None:
    import duckdb

    for path in (warehouse, warehouse.with_suffix(".duckdb.wal")):
        path.unlink(missing_ok=True)
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("create table main.witness (name varchar)")


def _start(project: Path, warehouse: Path, environment: dict[str, str], mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, str(project), str(warehouse), mode],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(project: Path, warehouse: Path, environment: dict[str, str], mode: str, tally: Tally | None = None) -> float:
    started = time.perf_counter()
    process = _start(project, warehouse, environment, mode)
    said = process.communicate()[0]
    if process.returncode:
        click.echo(said[-2000:], err=True)
        if tally is None:
            raise click.ClickException("a run that nobody disturbed failed")
        tally.unresumed += 1
    return time.perf_counter() - started


def _kill(
    project: Path, warehouse: Path, environment: dict[str, str], victim: str, after_nodes: int, after_seconds: float
) -> bool:
    """Start a run, and kill one of its processes a moment after so many nodes have ended; return whether it ran then.

    Args:
        after_nodes: -1 stands for before the first node has begun.
    """
    import psutil

    state = Path(environment["TRIBUTARY_STATE"]) / "bench" / "bench" / "runs"
    earlier = set(state.iterdir())
    process = _start(project, warehouse, environment, "full")
    while process.poll() is None and _ended(state, earlier) < after_nodes:
        time.sleep(0.002)
    time.sleep(after_seconds)
    if process.poll() is not None:
        process.communicate()
        return False
    children = psutil.Process(process.pid).children()
    doomed: Sequence[Any] = {"flow": [process], "dbt": children, "both": [process, *children]}[victim]
    for target in doomed:
        target.send_signal(signal.SIGKILL)
    process.communicate()
    # Its dbt lets go of the warehouse by itself when the flow process is gone; nobody may write before.
    psutil.wait_procs(children, timeout=60)
    return bool(doomed)


def _ended(runs: Path, earlier: set[Path]) -> int:
    """Return how many nodes of the newest run have ended; -1 before it has begun to write."""
    for run in set(runs.iterdir()) - earlier:
        ledger = run / "ledger.jsonl"
        if ledger.exists() and ledger.stat().st_size:
            return ledger.read_bytes().count(b'"status":"success"')
    return -1


def _committed(warehouse: Path) -> dict[str, int]:
    """Return how often each model ran, by the warehouse's own account."""
    import duckdb

    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return dict(connection.execute("select name, count(*) from main.witness group by name").fetchall())


def _reported(environment: dict[str, str]) -> set[str] | None:
    """Return the models of which dbt has said that they ended well; None when the run had come to its end."""
    from flows.engine.command import DbtCommand
    from flows.engine.resume import interrupted_run
    from flows.engine.state import state_of

    earlier = interrupted_run(state_of("bench", "bench", environment), DbtCommand("build"))
    return {node.name for node in earlier.done.values()} if earlier else None


def _count(warehouse: Path, models: int, tally: Tally, unreported: Set[str]) -> None:
    import duckdb

    names = [f"model_{number}" for number in range(models)]
    ran = _committed(warehouse)
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        tables = {row[0] for row in connection.execute("select table_name from duckdb_tables()").fetchall()}
        rows = {
            name: next(iter(connection.execute(f"select count(*) from main.{name}").fetchone() or (0,)))
            for name in names
            if name in tables
        }
    twice = {name for name in names if ran.get(name, 0) > 1 or rows.get(name, 0) > ROWS}
    tally.lost += sum(1 for name in names if rows.get(name, 0) < ROWS or not ran.get(name))
    tally.doubled += len(twice - unreported)
    tally.unreported += len(twice & unreported)


def _print(tally: Tally, kills: int, models: int) -> None:
    click.echo(f"{models} models, {kills} kills, {os.cpu_count()} cores")
    click.echo("killed while running: " + ", ".join(f"{who} {count}" for who, count in tally.killed.items()))
    click.echo(f"full run                 {statistics.median(tally.full_seconds):6.1f} s")
    click.echo(f"resumed to green, median {statistics.median(tally.resume_seconds):6.1f} s")
    click.echo(f"resumed to green, worst  {max(tally.resume_seconds):6.1f} s")
    click.echo(f"not green after resuming {tally.unresumed:6d}")
    click.echo(
        f"run again, as committed in the instant before the kill and not yet reported by dbt {tally.unreported:6d}"
    )
    click.echo(f"lost: {tally.lost} doubled: {tally.doubled} of {kills} kills")


if __name__ == "__main__":
    main()
