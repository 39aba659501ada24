"""Measure how fast raw data is loaded: `python -m benchmarks.raw_load --rows 1000000`."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.databases import database_of_its_own, usual_server
from flows.loaders.git.load import ingest_git
from flows.loaders.sample_data import write_sample_data
from infrastructure.console import EntryCommand
from infrastructure.profiles import Profile

PEOPLE, FILES = 300, 400


@dataclass(frozen=True)
class Measurement:
    """Hold what one load took."""

    load: str
    warehouse: str
    rows: int
    seconds: float

    @property
    def rows_per_second(self) -> int:
        """Return the speed, rounded."""
        return round(self.rows / self.seconds)


@click.command(cls=EntryCommand)
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of sample data.")
@click.option("--commits", default=100_000, show_default=True, help="Commits of a made-up repository; 0 leaves it out.")
@click.option("--only", type=click.Choice(["duckdb", "postgres"]), help="Measure one warehouse.")
def raw_load(rows: int, commits: int, only: str | None) -> None:
    """Load sample data and a made-up git repository into DuckDB and PostgreSQL, and print how long it took.

    PostgreSQL is found as its own tools find it (PGHOST, PGPORT, PGUSER, PGPASSWORD; 127.0.0.1, 5432 and
    postgres without them), and left out when it does not answer. A database is made for it and dropped.
    """
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="tributary-benchmark-") as folder:
        repository = str(Path(folder) / "repository.git")
        if commits:
            make_repository(repository, commits)
        for warehouse, open_profile in (("duckdb", duckdb_profile), ("postgres", postgres_profile)):
            if only and warehouse != only:
                continue
            with open_profile(Path(folder)) as profile:
                if profile is None:
                    continue
                measurements.append(
                    measure("sample data", profile, lambda at: write_sample_data(at, rows, seed=1).rows)
                )
                if commits:
                    measurements += [
                        measure("git, first load", profile, lambda at: ingest_git(at, [repository]).added),
                        measure("git, nothing new", profile, lambda at: ingest_git(at, [repository]).commit_count),
                    ]
    click.echo(f"{'load':<18}{'warehouse':<12}{'rows':>12}{'seconds':>10}{'rows/s':>12}")
    for each in measurements:
        numbers = f"{each.rows:>12,}{each.seconds:>10.2f}{each.rows_per_second:>12,}"
        click.echo(f"{each.load:<18}{each.warehouse:<12}{numbers}")
    speeds = {(each.load, each.warehouse): each.rows_per_second for each in measurements}
    for name, load in (("commits_per_second", "git, first load"), ("rows_per_second", "sample data")):
        values = (f"{warehouse}: {speeds.get((load, warehouse), 'none')}" for warehouse in ("duckdb", "postgres"))
        click.echo(f"{name} {' '.join(values)}")


def measure(load: str, profile: Profile, run: Callable[[Profile], int]) -> Measurement:
    """Run a load once and take its time."""
    start = time.perf_counter()
    rows = run(profile)
    return Measurement(load, profile.warehouse, rows, time.perf_counter() - start)


@contextmanager
def duckdb_profile(folder: Path) -> Iterator[Profile | None]:
    """Give a DuckDB file in a folder."""
    yield Profile("benchmark", "tributary", {"type": "duckdb", "path": str(folder / "benchmark.duckdb")}, {})


@contextmanager
def postgres_profile(_: Path) -> Iterator[Profile | None]:
    """Give a new PostgreSQL database, or None when no server answers, and drop it at the end."""
    import psycopg2

    with ExitStack() as stack:
        try:
            address = stack.enter_context(database_of_its_own(usual_server(), "benchmark"))
        except psycopg2.OperationalError as exc:
            click.echo(f"PostgreSQL is left out: {exc}".strip(), err=True)
            yield None
            return
        yield Profile("benchmark", "tributary", {"type": "postgres", **address}, {})


def make_repository(folder: str, commits: int) -> None:
    """Make a bare repository in which every commit rewrites two of 400 files."""
    subprocess.run(["git", "init", "--quiet", "--bare", folder], check=True)
    with subprocess.Popen(["git", "fast-import", "--quiet"], cwd=folder, stdin=subprocess.PIPE) as importer:
        assert importer.stdin
        importer.stdin.writelines(commit_text(number) for number in range(commits))
    subprocess.run(["git", "symbolic-ref", "HEAD", "refs/heads/main"], cwd=folder, check=True)
    if importer.returncode:
        raise click.ClickException(f"git fast-import ended with {importer.returncode}")


def commit_text(number: int) -> bytes:
    """Write one commit in the language of git fast-import."""
    who, moment = f"{number % PEOPLE:03d}", 1_400_000_000 + number * 97
    person = f"Author {who} <author{who}@example.org> {moment} +0000"
    message = f"Change {number}\n\nA body of a usual length says why, in a line or two, and what else was tried.\n"
    parts = [f"commit refs/heads/main\nauthor {person}\ncommitter {person}\ndata {len(message)}\n{message}"]
    for place in (number * 7919 % FILES, number * 104729 % FILES):
        lines = "".join(f"line {(number * 31 + line * 17) % 100}\n" for line in range(5 + number % 20))
        parts.append(f"M 100644 inline folder{place % 40}/file{place}.txt\ndata {len(lines)}\n{lines}\n")
    return "".join(parts).encode()


if __name__ == "__main__":
    raw_load()
