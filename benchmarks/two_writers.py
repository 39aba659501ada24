"""Cut the machine that writes to a target off from the server, and see in the warehouse who wrote when.

`python -m benchmarks.two_writers` ends in `two writers: 0 of … cases`. Two machines, each with a folder of its own,
build the same project on one target of a PostgreSQL; the second waits for the first. Then something happens to the
first that the server can't tell from its loss, or to the server, and the second gets the target. The times are those
that users have: a lease of two minutes. A case takes about four minutes, nearly all of it waiting.

The warehouse is the witness. Each model writes into a log table when it begins and when it is committed, outside of
its transaction, by the warehouse's clock. And the benchmark asks the warehouse all the time which machine has a
transaction open: what is cut off in the middle of a model has no last line in the log.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.databases import cursor_at, database_of_its_own, usual_server
from benchmarks.fleet.balancer import Balancer
from benchmarks.server import bucket_of_its_own, free_port, server_on, set_up_targets
from infrastructure.console import EntryCommand

if TYPE_CHECKING:
    import psycopg2.extensions

STATES = ("folder", "s3", "no conditions")
CUT, REFUSED, AHEAD, BEHIND, FORGETS = (
    "cut off",
    "refused",
    "cut off, clock 10 min ahead",
    "cut off, clock 10 min behind",
    "server forgets",
)
FAULTS = (CUT, REFUSED, AHEAD, BEHIND, FORGETS)
_CLOCKS = {AHEAD: 600, BEHIND: -600}
# So long that the first machine is still at work when its right to the target ends, however slowly the second starts.
_MODELS, _MODEL_SECONDS, _THREADS = 60, 15, 2
_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 600.0
# So long a server that has forgotten its leases is looked at before the first machine ends by itself.
_LONGER_THAN_A_LEASE_SECONDS = 150.0
_FIRST, _SECOND = "first", "second"
# A process that has this before the C library has another time of day; what it measures time with stays.
_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long off(void) { const char *text = getenv("TWO_WRITERS_CLOCK"); return text ? atol(text) : 0; }
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += off();
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    now->tv_sec = at.tv_sec; now->tv_usec = at.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *now) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (now) *now = at.tv_sec;
    return at.tv_sec;
}
"""


@dataclass(frozen=True)
class Case:
    """What happens, and where the state is."""

    state: str
    fault: str


@dataclass
class Seen:
    """What the warehouse saw of a case, in seconds from the fault on by its clock; see `_print`."""

    case: Case
    first_until: float
    second_from: float
    at_once: int
    first_process_until: float
    said: str

    @property
    def are_two(self) -> bool:
        """Return whether both wrote at one time."""
        return self.at_once > 0 or self.second_from < self.first_until


class Warehouse:
    """A schema of the PostgreSQL, and who writes to it."""

    def __init__(self, address: Mapping[str, Any], schema: str) -> None:
        self._address, self.schema = address, schema
        self.settings: dict[str, Any] = {
            "warehouse": "postgres",
            **{name: address[name] for name in ("host", "port", "user", "dbname")},
            "password_env": "TWO_WRITERS_PASSWORD",
            "schema": schema,
            "threads": _THREADS,
        }
        with self.cursor() as cursor:
            cursor.execute(
                f"create schema {schema}"
                " create table who_wrote (machine text, session int, model text, what text, at timestamptz)"
            )

    def cursor(self) -> AbstractContextManager[psycopg2.extensions.cursor]:
        """Return a cursor, each of whose statements is a transaction."""
        return cursor_at(self._address)

    def now(self, cursor: psycopg2.extensions.cursor) -> tuple[float, set[str], dict[str, int]]:
        """Return the time, the machines that have a transaction open, and how many models each has begun so far."""
        cursor.execute(
            "select extract(epoch from clock_timestamp()), array("
            f"  select distinct machine from {self.schema}.who_wrote join pg_stat_activity on pid = session"
            "   where xact_start is not null and datname = current_database()), "
            f"array(select machine from {self.schema}.who_wrote where what = 'begins')"
        )
        at, writing, begun = cursor.fetchone() or (0.0, [], [])
        return float(at), set(writing), {machine: begun.count(machine) for machine in (_FIRST, _SECOND)}

    def logged(self, machine: str, which: str) -> float:
        """Return the time of the first or the last line of a machine in the log."""
        order = {"first": "min", "last": "max"}[which]
        with self.cursor() as cursor:
            cursor.execute(
                f"select extract(epoch from {order}(at)) from {self.schema}.who_wrote where machine = %s", [machine]
            )
            return float((cursor.fetchone() or (0.0,))[0])


class Lane:
    """A case: two machines and a target of their own."""

    def __init__(self, case: Case, folder: Path, warehouse: Warehouse, environment: Mapping[str, str]) -> None:
        folder.mkdir()
        self._case, self._folder, self._warehouse = case, folder, warehouse
        self._target = warehouse.schema.replace("_", "-")
        self._environment = {**environment, "PREFECT_HOME": str(folder / "prefect")}
        self._project = _write_project(folder, warehouse.schema)

    def play(self, api: str, bucket: str, clock: Path) -> Seen:
        """Have the first machine write, the second wait, and the fault happen; return what the warehouse saw."""
        with ExitStack() as stack:
            restart = None
            if self._case.fault == FORGETS:
                server = stack.enter_context(server_on(free_port(), self._environment))
                api, restart = server.url, server.restart
            set_up_targets({**self._environment, "PREFECT_API_URL": api}, self._folder, {self._target: self._settings})
            road = Balancer(free_port(), [int(api.rpartition(":")[2].partition("/")[0])])
            road.start()
            stack.callback(road.stop)
            cursor = stack.enter_context(self._warehouse.cursor())
            ways = {_FIRST: f"http://127.0.0.1:{road.port}/api", _SECOND: api}
            first = self._start(stack, _FIRST, ways[_FIRST], bucket, clock)
            self._until(lambda: self._warehouse.now(cursor)[2][_FIRST] > 0, "the first machine writes", first)
            second = self._start(stack, _SECOND, ways[_SECOND], bucket, clock)
            self._until(lambda: "Waiting for target" in self._said(_SECOND), "the second waits for it", second)
            fault_at, *_ = self._warehouse.now(cursor)
            click.echo(f"{self._case.state}, {self._case.fault}: now", err=True)
            if restart:
                restart()
            else:
                (road.refuse if self._case.fault == REFUSED else road.hang)()
            return self._watch(cursor, fault_at, first, second)

    def _watch(
        self,
        cursor: psycopg2.extensions.cursor,
        fault_at: float,
        first: subprocess.Popen[bytes],
        second: subprocess.Popen[bytes],
    ) -> Seen:
        """Ask the warehouse who writes until the second machine has for a while and the first is gone."""
        open_until, at_once, ended_at, is_asked = fault_at, 0, 0.0, False

        def is_over() -> bool:
            nonlocal open_until, at_once, ended_at, is_asked
            at, writing, begun = self._warehouse.now(cursor)
            at_once += len(writing) > 1
            if _FIRST in writing:
                open_until = at
            if first.poll() is not None and not ended_at:
                ended_at = at
            if self._case.fault == FORGETS and not is_asked and at > fault_at + _LONGER_THAN_A_LEASE_SECONDS:
                # It has not lost its target: it ends when it is asked to.
                first.send_signal(signal.SIGTERM)
                is_asked = True
            return begun[_SECOND] > _THREADS and ended_at > 0

        self._until(is_over, "the second machine writes and the first is gone", second)
        seen = Seen(
            self._case,
            max(open_until, self._warehouse.logged(_FIRST, "last")) - fault_at,
            self._warehouse.logged(_SECOND, "first") - fault_at,
            at_once,
            ended_at - fault_at,
            next((line for line in reversed(self._said(_FIRST).splitlines()) if "was stopped" in line), ""),
        )
        click.echo(_row(seen), err=True)
        return seen

    @property
    def _settings(self) -> dict[str, Any]:
        return self._warehouse.settings

    def _start(self, stack: ExitStack, machine: str, api: str, bucket: str, clock: Path) -> subprocess.Popen[bytes]:
        """Start a build on a machine, which is gone when the stack is left."""
        state = {
            "folder": str(self._folder / machine / "state"),
            "s3": f"{bucket}/{self._target}",
            # A file system knows no conditions as fsspec asks for them.
            "no conditions": f"file://{self._folder / 'shared'}",
        }[self._case.state]
        environment = {
            **self._environment,
            "PREFECT_API_URL": api,
            "TRIBUTARY_STATE": state,
            "TRIBUTARY_STATE_COPY": str(self._folder / machine / "copy"),
            "MACHINE": machine,
        }
        if machine == _FIRST and self._case.fault in _CLOCKS:
            environment |= {"LD_PRELOAD": str(clock), "TWO_WRITERS_CLOCK": str(_CLOCKS[self._case.fault])}
        command = [sys.executable, "-m", "flows", "run", "--target", self._target, "--project-dir", str(self._project)]
        log = stack.enter_context((self._folder / f"{machine}.log").open("wb"))
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        stack.callback(_end, process)
        return process

    def _said(self, machine: str) -> str:
        return (self._folder / f"{machine}.log").read_text(encoding="utf-8", errors="replace")

    def _until(self, is_so: Callable[[], bool], what: str, needed: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not is_so():
            if time.monotonic() > deadline or needed.poll() is not None:
                said = "\n".join(
                    f"{name}:\n{self._said(name)[-1500:]}" for name in (_FIRST, _SECOND) if self._has(name)
                )
                raise click.ClickException(f"{self._case.state}, {self._case.fault}: waited in vain: {what}\n{said}")
            time.sleep(_POLL_SECONDS)

    def _has(self, machine: str) -> bool:
        return (self._folder / f"{machine}.log").exists()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a build and its dbt, which lets go of the warehouse by itself."""
    import psutil

    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        psutil.wait_procs(children, timeout=60)
    process.wait()


def _write_project(folder: Path, schema: str) -> Path:
    """Write a dbt project each of whose models takes a while, and return its folder."""
    project = folder / "project"
    (project / "models").mkdir(parents=True)
    (project / "macros").mkdir()
    values = "'{{ env_var('MACHINE') }}', pg_backend_pid(), '{{ this.name }}', '{{ what }}', clock_timestamp()"
    (project / "macros" / "who_writes.sql").write_text(
        f"{{% macro who_writes(what) %}}insert into {schema}.who_wrote values ({values}){{% endmacro %}}\n"
    )
    # Outside of the model's transaction, so that the line stays when that is rolled back.
    hooks = {
        f"+{when}-hook": {"sql": f"{{{{ who_writes('{what}') }}}}", "transaction": False}
        for when, what in (("pre", "begins"), ("post", "committed"))
    }
    (project / "dbt_project.yml").write_text(
        "name: bench\nversion: '1.0'\nprofile: bench\nflags: {send_anonymous_usage_stats: false}\n"
        f"models: {json.dumps({'bench': {'+materialized': 'table', **hooks}})}\n"
    )
    for number in range(_MODELS):
        sql = f"select id from generate_series(1, 100) as made(id), pg_sleep({_MODEL_SECONDS})\n"
        (project / "models" / f"model_{number}.sql").write_text(sql)
    return project


def _built_clock(folder: Path) -> Path:
    """Build what gives a process another time of day, and return the library."""
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_CLOCK)
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise click.ClickException(f"A clock that is off needs a C compiler, cc: {exc}") from exc
    return library


@click.command(cls=EntryCommand)
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Where the state is; all.")
@click.option("--fault", "faults", type=click.Choice(FAULTS), multiple=True, help="What happens; everything.")
@click.option("--at-once", default=5, show_default=True, help="Cases at a time.")
def main(states: Sequence[str], faults: Sequence[str], at_once: int) -> None:
    """See who writes when the machine that writes is cut off."""
    cases = [Case(state, fault) for fault in faults or FAULTS for state in states or STATES]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="two-writers-")))
        database = stack.enter_context(database_of_its_own(usual_server(), "two_writers"))
        bucket = stack.enter_context(bucket_of_its_own()) if "s3" in {case.state for case in cases} else ""
        clock = _built_clock(folder) if any(case.fault in _CLOCKS for case in cases) else folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TRIBUTARY_"))}
        environment = {**kept, "TWO_WRITERS_PASSWORD": str(database.get("password") or "none")}
        home = {**environment, "PREFECT_HOME": str(folder / "prefect")}
        api = stack.enter_context(server_on(free_port(), home)).url
        lanes = [
            Lane(case, folder / f"lane-{number}", Warehouse(database, f"lane_{number}"), environment)
            for number, case in enumerate(cases)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(at_once))
        seen = list(pool.map(partial(Lane.play, api=api, bucket=bucket, clock=clock), lanes))
    _print(seen)


def _print(seen: Sequence[Seen]) -> None:
    click.echo("seconds from the fault on, by the warehouse's clock; the first machine's right lasts for 120 s")
    click.echo(
        f"{'state':<15}{'what happens':<30}{'first writes until':>20}{'second from':>13}{'between':>9}{'both':>6}"
        f"{'first process ends':>20}"
    )
    for it in seen:
        click.echo(_row(it))
    for said in dict.fromkeys(it.said for it in seen):
        click.echo(f"the first says: {said or 'nothing of it'}")
    click.echo(f"two writers: {sum(it.are_two for it in seen)} of {len(seen)} cases")


def _row(it: Seen) -> str:
    return (
        f"{it.case.state:<15}{it.case.fault:<30}{it.first_until:>20.1f}{it.second_from:>13.1f}"
        f"{it.second_from - it.first_until:>9.1f}{it.at_once:>6}{it.first_process_until:>20.1f}"
    )


if __name__ == "__main__":
    main()
