"""Kill runs at random moments, go on from them, and count what was lost or done twice.

`python -m benchmarks.recovery --kills 200 --target postgres` ends in `lost: … doubled: … of … kills`. What is killed
is `python -m flows run`, its dbt, or both; each run that goes on with `--resume` is the next to be killed, until after
a few kills one is let finish. The warehouse itself is the witness (`witnesses.py`): it is asked after every kill
whether it has what the run's record calls done, and at the end whether it has everything once.

What nobody but the warehouse can know is counted apart: a model that was committed in the instant before its dbt was
killed, of which dbt had not yet said so. It runs again, and `doubled` counts those of which dbt had said so.

`--elsewhere` has the state in a bucket, and each kill takes the machine's own folder with it: another machine goes on,
with what the bucket has. What the machine knew and had not sent yet runs again too, and is counted apart.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from benchmarks.databases import database_of_its_own, server_at
from benchmarks.server import bucket_of_its_own, prefect_server, set_up_targets
from benchmarks.witnesses import DuckDBFile, PostgresSchema, Witness, write_witnessed_project
from infrastructure.console import EntryCommand
from infrastructure.errors import UpstreamUnavailable

# Who is killed: the flow process, its dbt child, or both at once. What comes of the first is what is hardest to know.
_VICTIMS = ("flow", "dbt", "flow", "both")
# After so many kills a project is built to its end and looked at as a whole.
_KILLS_OF_A_BUILD = 4
_THREADS = 4


@dataclass
class Tally:
    """What the kills came to."""

    kills: int = 0
    lost: int = 0
    doubled: int = 0
    unreported: int = 0
    unsent: int = 0
    unresumed: int = 0
    built: int = 0
    resume_seconds: list[float] = field(default_factory=list[float])
    # How long a dbt whose flow process was killed held its target.
    outlived_seconds: list[float] = field(default_factory=list[float])
    killed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_VICTIMS, 0))
    guard: threading.Lock = field(default_factory=threading.Lock)


class Lane:
    """A project on a target of its own: built, killed on the way, gone on with, looked at, and built anew.

    The server holds a killed run's target for two minutes, until its lease has run out; others are killed then.

    Args:
        bucket: the address of the state, where each kill takes the machine's own folder with it.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        models: int,
        witness: Witness,
        environment: Mapping[str, str],
        seed: str,
        bucket: str | None = None,
    ) -> None:
        self.name = name
        self.witness = witness
        self._models = models
        self._folder = folder
        self._bucket = bucket
        self._machines = 0
        self._environment = {**environment, "TRIBUTARY_STATE": bucket or str(folder / "state")}
        self._go_elsewhere()
        self._project = write_witnessed_project(folder, models, witness)
        self._chance = random.Random(seed)
        self._kills = 0
        # Whether there is a run to go on from.
        self._is_begun = False
        # How often each model may have run again, as nobody could know of it.
        self._excused: dict[str, int] = {}
        # Which of these only the machine knew of that was lost.
        self._unsent: set[str] = set()
        # Of which the record said that they were done, and the warehouse had nothing.
        self._lost: set[str] = set()

    def kill_once(self, tally: Tally) -> None:
        """Build, or go on, and kill on the way; build to the end when that has been done often enough."""
        while not self._kill(tally):
            pass
        if self._kills == _KILLS_OF_A_BUILD:
            self.complete(tally)

    def complete(self, tally: Tally) -> None:
        """Let what was killed go on to its end, and count."""
        if not self._is_begun:
            return
        started = time.perf_counter()
        process = self._start()
        said = process.communicate()[0]
        with tally.guard:
            tally.resume_seconds.append(time.perf_counter() - started)
        self._count(process.returncode, said, tally)

    def _kill(self, tally: Tally) -> bool:
        """Start a run and kill somebody in it; return False when it had come to its end before."""
        import psutil

        if not self._is_begun:
            self.witness.fresh()
        victim = _VICTIMS[(sum(tally.killed.values())) % len(_VICTIMS)]
        # By what has happened and not by the clock: a busy machine must not move the kills out of the run.
        after_nodes = self._chance.randrange(-1, max(1, self._models // _KILLS_OF_A_BUILD))
        after_seconds = self._chance.uniform(0.0, 0.5)
        earlier = set(self._runs())
        process = self._start()
        while process.poll() is None and self._ended(earlier) < after_nodes:
            time.sleep(0.005)
        time.sleep(after_seconds)
        if process.poll() is not None:
            self._count(process.returncode, process.communicate()[0], tally)
            return False
        children = psutil.Process(process.pid).children(recursive=True)
        doomed: Sequence[Any] = {"flow": [process], "dbt": children, "both": [process, *children]}[victim]
        for target in doomed:
            target.send_signal(signal.SIGKILL)
        killed_at = time.perf_counter()
        # Its dbt lets go of the warehouse by itself when the flow process is gone.
        psutil.wait_procs(children, timeout=120)
        outlived = time.perf_counter() - killed_at
        process.communicate()
        while not self.witness.is_still():
            time.sleep(0.05)
        if not doomed:
            return False
        with tally.guard:
            tally.killed[victim] += 1
            tally.kills += 1
            if victim == "flow":
                tally.outlived_seconds.append(outlived)
        self._kills += 1
        self._is_begun = True
        return self._look(tally, f"{self.name}, {victim} after {after_nodes}")

    def _look(self, tally: Tally, what: str) -> bool:
        """Compare what the record of a killed run calls done with what the warehouse has."""
        ran = self.witness.ran()
        own = self._done(self._environment | {"TRIBUTARY_STATE": str(self._root())})
        if self._bucket:
            shutil.rmtree(self._root())
            self._go_elsewhere()
        earlier = self._done(self._environment) if self._bucket else own
        # A run whose flow process had written down its good end in that very moment has nothing undone.
        done = set(ran) if earlier is None else earlier
        self._excused |= {name: count for name, count in ran.items() if name not in done}
        self._unsent |= {name for name in own or () if name in ran and name not in done}
        lost = done - ran.keys()
        self._lost |= lost
        with tally.guard:
            click.echo(
                f"{tally.kills}: {what}: {len(done)} done, {len(ran)} in the warehouse"
                + (f", LOST {', '.join(sorted(lost))}" if lost else ""),
                err=True,
            )
        # Killed before its build began, it has no record and no rows either: the next run does it all. So it does where
        # nothing was sent yet.
        if earlier is None and ran and not self._bucket:
            self._count(0, "", tally)
        return True

    # The bucket's server is one of a busy machine.
    @retry(retry=retry_if_exception_type(UpstreamUnavailable), stop=stop_after_attempt(6), reraise=True)
    def _done(self, environment: Mapping[str, str]) -> set[str] | None:
        """Return what the record of the last run calls done; None where there is none."""
        from flows.engine.context.command import DbtCommand
        from flows.engine.context.project import read_project
        from flows.engine.context.state import state_of
        from flows.engine.ledger.resume import interrupted_run

        state = state_of(read_project(self._project), self.name, environment)
        earlier = interrupted_run(state, DbtCommand("build"))
        return {node.name for node in earlier.done.values()} if earlier else None

    def _go_elsewhere(self) -> None:
        """Be another machine, which has nothing but the address of the state."""
        self._machines += 1
        self._environment["TRIBUTARY_STATE_COPY"] = str(self._folder / f"machine-{self._machines}")

    def _root(self) -> Path:
        """Return the folder in which this machine has the state."""
        from flows.engine.context.state import state_root

        return state_root(self._environment)

    def _count(self, code: int, said: str, tally: Tally) -> None:
        """Count what a build that was let finish has lost or done twice; the next one begins with nothing."""
        ran, rows = self.witness.ran(), self.witness.counted()
        names = {f"model_{number}" for number in range(self._models)}
        lost = self._lost | {name for name in names if rows.get(name, 0) < self.witness.rows or not ran.get(name)}
        twice = {name for name in names if ran.get(name, 0) > 1 or rows.get(name, 0) > self.witness.rows}
        doubled = {name for name in twice if ran.get(name, 0) > self._excused.get(name, 0) + 1}
        with tally.guard:
            tally.built += 1
            tally.unresumed += code != 0
            tally.lost += len(lost)
            tally.doubled += len(doubled)
            tally.unsent += len(twice - doubled & self._unsent)
            tally.unreported += len(twice - doubled - self._unsent)
            if code:
                click.echo(said[-2000:], err=True)
            click.echo(f"{self.name} is built: lost {tally.lost}, doubled {tally.doubled} so far", err=True)
        self._kills, self._is_begun, self._excused, self._lost, self._unsent = 0, False, {}, set(), set()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flows", "run", "--target", self.name, "--project-dir", str(self._project)]
        return subprocess.Popen(
            [*command, *(["--resume"] if self._is_begun else [])],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _runs(self) -> list[Path]:
        folder = self._root() / "bench" / self.name / "runs"
        return list(folder.iterdir()) if folder.is_dir() else []

    def _ended(self, earlier: set[Path]) -> int:
        """Return how many nodes the newest run has ended itself; -1 before it has begun one."""
        for run in set(self._runs()) - earlier:
            ledger = run / "ledger.jsonl"
            if ledger.exists():
                lines = [line for line in ledger.read_bytes().splitlines() if b'"attempt":1' in line]
                return sum(b'"status":"success"' in line for line in lines) if lines else -1
        return -2


@click.command(cls=EntryCommand)
@click.option("--kills", default=100, show_default=True)
@click.option("--target", type=click.Choice(["duckdb", "postgres"]), default="duckdb", show_default=True)
@click.option("--elsewhere", is_flag=True, help="State in a bucket, of which each kill takes the machine's copy.")
@click.option("--models", default=24, show_default=True)
@click.option("--seed", default=1, show_default=True, help="Of the moments of the kills.")
@click.option("--at-once", default=2, show_default=True, help="Runs at a time.")
@click.option("--minutes", type=float, help="Begin no further kill after so long, however many there were.")
@click.option("--lanes", default=12, show_default=True, help="Projects that are killed in turn.")
@click.option(
    "--server",
    default="postgresql://postgres@127.0.0.1:5432/postgres",
    show_default=True,
    help="The PostgreSQL in which a database is made for the time of the benchmark.",
)
def main(  # noqa: PLR0913  (a parameter per option)
    kills: int,
    target: str,
    elsewhere: bool,
    models: int,
    seed: int,
    at_once: int,
    minutes: float | None,
    lanes: int,
    server: str,
) -> None:
    """Kill, go on, count."""
    tally = Tally()
    started = time.perf_counter()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recovery-")))
        database = None
        if target == "postgres":
            database = stack.enter_context(database_of_its_own(server_at(server), "recovery"))
        bucket = stack.enter_context(bucket_of_its_own()) if elsewhere else None
        environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect")}
        environment |= {"RECOVERY_PASSWORD": str((database or {}).get("password") or "none")}
        environment["PREFECT_API_URL"] = stack.enter_context(prefect_server(environment))
        projects: list[Lane] = []
        for number in range(min(lanes, kills)):
            name = f"bench-{number}"
            place = folder / name
            place.mkdir()
            witness = (
                PostgresSchema(database, f"lane_{number}", _THREADS)
                if database
                else DuckDBFile(place / "bench.duckdb", _THREADS)
            )
            of_lane = f"{bucket}/{name}" if bucket else None
            projects.append(Lane(name, place, models, witness, environment, f"{seed}/{number}", of_lane))
        set_up_targets(environment, folder, {lane.name: lane.witness.settings for lane in projects})
        pool = stack.enter_context(ThreadPoolExecutor(at_once))
        for begin in range(0, kills, len(projects)):
            if minutes is not None and time.perf_counter() - started > minutes * 60:
                break
            list(pool.map(partial(Lane.kill_once, tally=tally), projects[: kills - begin]))
        list(pool.map(partial(Lane.complete, tally=tally), projects))
    _print(tally, models, time.perf_counter() - started)


def _print(tally: Tally, models: int, seconds: float) -> None:
    click.echo(
        f"{models} models, {tally.kills} kills of {tally.built} builds, {os.cpu_count()} cores, {seconds / 60:.0f} min"
    )
    click.echo("killed while running: " + ", ".join(f"{who} {count}" for who, count in tally.killed.items()))
    click.echo(f"resumed to green, median {statistics.median(tally.resume_seconds):6.1f} s")
    click.echo(f"resumed to green, worst  {max(tally.resume_seconds):6.1f} s")
    if tally.outlived_seconds:
        click.echo(f"dbt gone after its flow process, median {statistics.median(tally.outlived_seconds):6.1f} s")
        click.echo(f"dbt gone after its flow process, worst  {max(tally.outlived_seconds):6.1f} s")
    click.echo(f"not green after resuming {tally.unresumed:6d}")
    click.echo(
        f"run again, as committed in the instant before the kill and not yet reported by dbt {tally.unreported:6d}"
    )
    click.echo(f"run again, as not yet sent to the bucket by the machine that was lost {tally.unsent:6d}")
    click.echo(f"lost: {tally.lost} doubled: {tally.doubled} of {tally.kills} kills")


if __name__ == "__main__":
    main()
