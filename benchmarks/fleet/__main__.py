"""Many workers on several API servers: flow runs per minute, start latency, and what kills do to the runs.

`uv run --group fleet --extra postgres python -m benchmarks.fleet` ends in `lost: 0 doubled: 0 by_hand: 0`. All of it is
real and its own: databases on your PostgreSQL, Redis, two API servers without services, the services, four process
workers. The runs are empty ones and dbt builds on targets of their own. A worker, an API server and Redis are each
killed once; with `--together`, before anything has got over the one before. What was cut off goes on by itself, as
`resume_after_crash: 2` has it; a run begins every minute that looks after others, as `escalate-alerts` does every five.
What the benchmark has to start again, as a person does with "Retry", is counted as by hand.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from benchmarks.figures import median_and_p95
from benchmarks.fleet.system import POOL, Fleet, databases
from benchmarks.projects import write_small_project
from infrastructure.console import EntryCommand
from infrastructure.server.automations import (
    RESUMES_TAG,
    Patience,
    resume_documents,
    will_be_resumed,
)

# The tag of this benchmark's deployments, and how often their runs go on by themselves.
_MARKER, _TIMES = "fleet", 2
# When nothing has changed for so long, what is not done by then is lost. The server looks at its own patience about as
# often as it is long, and looks at nothing for some minutes after Redis was away.
_LOST_SECONDS = 900
_RETRIES = 3
# How often a run begins that looks after others.
_LOOK_SECONDS = 60.0


@dataclass
class Burst:
    """What became of runs that were asked for at once."""

    name: str
    asked: list[str]
    asked_at: float
    empties: int
    builds: int


@dataclass
class Kills:
    """Who was killed, and what it cut off."""

    processes: set[int] = field(default_factory=set[int])
    cut_off: set[str] = field(default_factory=set[str])
    at: dict[str, float] = field(default_factory=dict[str, float])
    named: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    again: Counter[str] = field(default_factory=Counter[str])
    by_hand: set[str] = field(default_factory=set[str])


@click.command(cls=EntryCommand)
@click.option("--rounds", default=10, show_default=True, help="Empty runs, one after the other, on an idle fleet.")
@click.option("--runs", default=60, show_default=True, help="Empty runs of each burst.")
@click.option("--builds", default=12, show_default=True, help="dbt builds of each burst.")
@click.option(
    "--targets",
    default=12,
    show_default=True,
    help="Targets that they build on, each with one writer. With fewer than builds, a killed run gives way to one that "
    "has had its target since.",
)
@click.option("--workers", default=4, show_default=True)
@click.option("--servers", default=2, show_default=True, help="API servers.")
@click.option("--at-once", default=2, show_default=True, help="Runs at once, per worker.")
@click.option("--kills/--no-kills", default=True, help="Have a burst in which things are killed.")
@click.option(
    "--silent-seconds",
    default=Patience().gone,
    show_default=True,
    help="After how long without a sign of life a run is called crashed; more on a busy machine.",
)
@click.option("--together", is_flag=True, help="Kill the next thing before what was cut off goes on.")
def main(  # noqa: PLR0913  (a parameter per option)
    rounds: int,
    runs: int,
    builds: int,
    targets: int,
    workers: int,
    servers: int,
    at_once: int,
    kills: bool,
    silent_seconds: int,
    together: bool,
) -> None:
    """Measure a fleet of workers."""
    # However it is ended, it leaves nothing behind.
    signal.signal(signal.SIGTERM, _leave)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        server, prefect_database, warehouse = stack.enter_context(databases())
        fleet = Fleet(folder, server, prefect_database, servers, at_once)
        stack.callback(fleet.stop)
        fleet.start_servers()
        bench = Bench(fleet, folder, [f"worker {number + 1}" for number in range(workers)], together)
        bench.set_up(server, warehouse, targets, silent_seconds)
        bursts = [bench.one_by_one(rounds)] if rounds else []
        bursts.append(bench.burst("burst", runs, builds))
        killed = Kills()
        if kills:
            bursts.append(bench.burst("burst with kills", runs, builds, killed))
        _print(bursts, fleet, killed, workers, servers, at_once)


class Bench:
    """The runs that are asked of a fleet."""

    def __init__(self, fleet: Fleet, folder: Path, workers: Sequence[str], together: bool) -> None:
        self._fleet = fleet
        self._folder = folder
        self._workers = list(workers)
        self._project = write_small_project(folder)
        self._deployments: dict[str, str] = {}
        self._targets: list[str] = []
        self._lost_after_seconds = 0.0
        self._together = together
        self._looked_at = time.monotonic()

    def set_up(self, server: Mapping[str, Any], warehouse: str, targets: int, silent_seconds: int) -> None:
        """Register targets, pool and deployments, have the server watch the runs, and start the workers."""
        self._targets = [f"fleet{number}" for number in range(targets)]
        self._lost_after_seconds = max(_LOST_SECONDS, 3 * silent_seconds)
        self._register(server, warehouse)
        fleet = self._fleet
        fleet.post("/work_pools/", {"name": POOL, "type": "process", "base_job_template": {}})
        for name in ("empty", "build", "look"):
            flow_id = fleet.post("/flows/", {"name": name})["id"]
            step = {"prefect.deployments.steps.set_working_directory": {"directory": str(Path.cwd())}}
            deployment = {
                "name": "fleet",
                "flow_id": flow_id,
                "entrypoint": f"benchmarks.fleet.flows.{name}",
                "pull_steps": [step],
                "work_pool_name": POOL,
                "tags": [_MARKER, f"{RESUMES_TAG}{_TIMES}"],
            }
            self._deployments[name] = fleet.post("/deployments/", deployment)["id"]
        for automation in resume_documents("fleet", _MARKER, [_TIMES], Patience(gone=silent_seconds)):
            document = {"name": automation.name, "trigger": automation.trigger, "actions": list(automation.actions)}
            fleet.post("/automations/", {**document, "enabled": True})
        for name in self._workers:
            fleet.start_worker(name)
        fleet.wait("the workers", lambda: self._online() == len(self._workers))

    def one_by_one(self, rounds: int) -> Burst:
        """Ask for an empty run when the last one is done; the first warms the workers and is not counted."""
        self._settle([self._ask("empty", {})], None)
        burst = Burst("one by one", [], time.time(), rounds, 0)
        for _ in range(rounds):
            burst.asked.append(self._ask("empty", {}))
            self._settle(burst.asked[-1:], None)
        return burst

    def burst(self, name: str, empties: int, builds: int, kills: Kills | None = None) -> Burst:
        """Ask for all runs at once; with kills, a worker, a server and Redis are killed on the way."""
        burst = Burst(name, [], time.time(), empties, builds)
        kinds = sorted(
            [(number / empties, "empty", number) for number in range(empties)]
            + [(number / builds, "build", number) for number in range(builds)]
        )
        victims = (
            {len(kinds) // 4: "worker", len(kinds) // 2: "server 1", len(kinds) * 3 // 4: "redis"} if kills else {}
        )
        for place, (_, kind, number) in enumerate(kinds):
            if kills and place in victims:
                self._kill(victims[place], burst.asked, kills)
            parameters = {"target": self._targets[number % len(self._targets)], "project_dir": str(self._project)}
            burst.asked.append(self._ask(kind, parameters if kind == "build" else {}))
        self._settle(burst.asked, kills)
        return burst

    def _ask(self, kind: str, parameters: dict[str, Any]) -> str:
        # With a key, an answer that was lost can be asked for again.
        body = {"parameters": parameters, "idempotency_key": uuid4().hex, "state": {"type": "SCHEDULED"}}
        return self._fleet.post(f"/deployments/{self._deployments[kind]}/create_flow_run", body)["id"]

    def _kill(self, who: str, asked: Sequence[str], kills: Kills) -> None:
        """Kill while there is work in progress, leave it away for a moment, and start it again."""
        fleet = self._fleet
        # Empty runs are over in an instant: what is in progress is a build.
        fleet.wait("a run in progress", lambda: self._in_progress(asked))
        if who == "worker":
            who = max(self._workers, key=lambda name: len(self._in_progress(asked, fleet.processes_of(name))))
        processes = fleet.kill(who)
        kills.at[who] = time.time()
        kills.processes |= processes
        kills.cut_off |= self._in_progress(asked, processes)
        click.echo(f"killed {who}, {len(processes)} processes", err=True)
        # What is away for an instant is not missed; a cluster takes about so long to replace something.
        time.sleep(5)
        if who in self._workers:
            fleet.start_worker(who)
            if not self._together:
                self._let_go_on(kills)
        elif who == "redis":
            fleet.start_redis()
        else:
            fleet.start_server(who)

    def _let_go_on(self, kills: Kills) -> None:
        """Wait until what was cut off goes on, so that the next kill is not in its way: one thing breaks at a time."""
        since = min(kills.at.values())

        def goes_on() -> bool:
            self._look()
            builds = self._fleet.builds()
            at_work = {run_id for run_id, times in builds.items() if max(times) > since}
            done = {run["id"] for run in self._fleet.runs() if run["state_type"] == "COMPLETED"}
            return kills.cut_off <= at_work | done

        # What does not is looked after in the end.
        with suppress(click.ClickException):
            self._fleet.wait("what was cut off", goes_on, self._lost_after_seconds)

    def _in_progress(self, asked: Sequence[str], processes: set[int] | None = None) -> set[str]:
        begun: set[str] = set()
        for mark in read_marks(self._fleet.marks):
            if mark["run"] in asked and (processes is None or mark["process"] in processes):
                (begun.add if mark["kind"] == "begun" else begun.discard)(mark["run"])
        return begun

    def _settle(self, asked: Sequence[str], kills: Kills | None) -> None:
        """Wait until the runs are done; what does not go on by itself is run again, as a person would."""
        wanted = set(asked)
        seen: Counter[str] = Counter()
        since = time.monotonic()
        while time.monotonic() - since < self._lost_after_seconds:
            runs = [run for run in self._fleet.runs() if run["id"] in wanted]
            counts = Counter(run["state_type"] for run in runs)
            if counts["COMPLETED"] + sum(map(_gave_way, runs)) == len(wanted):
                return
            if counts != seen:
                seen, since = counts, time.monotonic()
                click.echo(", ".join(f"{count} {kind.lower()}" for kind, count in counts.items()), err=True)
            for run in runs:
                if run["state_type"] in ("CRASHED", "FAILED"):
                    self._ended_badly(run, kills)
                elif kills and time.monotonic() - since > self._lost_after_seconds / 2:
                    # Nothing has moved for long, and the server has not noticed: a person would.
                    self._start_by_hand(run["id"], run["state_type"], kills)
            self._look()
            time.sleep(0.5)

    def _look(self) -> None:
        """Have a run begin every minute that looks after others, as a schedule does."""
        if time.monotonic() - self._looked_at > _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._ask("look", {})

    def _ended_badly(self, run: Mapping[str, Any], kills: Kills | None) -> None:
        """Write down why a run ended, and run it again where it does not go on by itself."""
        run_id, state = run["id"], run["state"]
        said = f"{state['type'].title()}: {state['message']}"
        if kills is None:
            raise click.ClickException(f"a run that nobody disturbed is {said}")
        if run_id not in kills.named or kills.named[run_id][0] != said:
            click.echo(f"{run['name']}, {run['run_count']} times begun: {said}", err=True)
        kills.named[run_id] = said, kills.named.get(run_id, ("", _moment(state["timestamp"])))[1]
        goes_on = state["type"] == "CRASHED" and will_be_resumed(run["tags"], run["run_count"])
        if goes_on or kills.again[run_id] >= _RETRIES:
            return
        kills.again[run_id] += 1
        kills.by_hand.add(run_id)
        self._fleet.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}})

    def _start_by_hand(self, run_id: str, kind: str, kills: Kills) -> None:
        """Start a run again that the killed processes left behind; what is still alive is not touched."""
        if run_id not in kills.by_hand and (run_id in kills.cut_off or kind == "PENDING"):
            kills.by_hand.add(run_id)
            again = {"type": "SCHEDULED", "name": "AwaitingRetry"}
            self._fleet.post(f"/flow_runs/{run_id}/set_state", {"state": again, "force": True})

    def _online(self) -> int:
        found = self._fleet.post(f"/work_pools/{POOL}/workers/filter", {})
        return sum(1 for worker in found if worker["status"] == "ONLINE")

    def _register(self, server: Mapping[str, Any], warehouse: str) -> None:
        lines = ["profile: bench", f"default: {self._targets[0]}", "targets:"]
        for target in self._targets:
            lines += [f"  {target}:", "    warehouse: postgres", f"    host: {server['host']}"]
            lines += [f"    port: {server['port']}", f"    user: {server['user']}", "    password_env: FLEET_PASSWORD"]
            lines += [f"    dbname: {warehouse}", f"    schema: {target}", "    threads: 2"]
        path = self._folder / "targets.yml"
        path.write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "infrastructure.setup_profiles", "--blocks-only", "--targets-file", str(path)]
        environment = self._fleet.environment | {"FLEET_PASSWORD": server["password"] or "none"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(f"the targets could not be registered: {done.stdout}{done.stderr}")


def read_marks(path: Path) -> list[dict[str, Any]]:
    """Return the marks that runs have left, in the order in which they were left."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _print(bursts: Sequence[Burst], fleet: Fleet, kills: Kills, workers: int, servers: int, at_once: int) -> None:
    runs = {run["id"]: run for run in fleet.runs()}
    click.echo(
        f"{servers} API servers, services apart, PostgreSQL, Redis, {workers} workers of {at_once} runs at once, "
        f"all on {os.cpu_count()} cores"
    )
    click.echo(f"{'':<20}{'empty runs':>12}{'dbt builds':>12}{'runs/min':>10}{'start s, p50':>14}{'p95':>8}")
    for burst in bursts:
        mine = [runs[run_id] for run_id in burst.asked if run_id in runs]
        ends = [_moment(run["end_time"]) for run in mine if run["end_time"]]
        per_minute = 60 * len(ends) / (max(ends, default=burst.asked_at + 1) - burst.asked_at)
        starts = [_moment(run["start_time"]) - _moment(run["expected_start_time"]) for run in mine if run["start_time"]]
        p50, p95 = median_and_p95(starts)
        click.echo(f"{burst.name:<20}{burst.empties:>12}{burst.builds:>12}{per_minute:>10.1f}{p50:>14.1f}{p95:>8.1f}")
    _print_kills(kills, runs, fleet)
    asked = [run_id for burst in bursts for run_id in burst.asked]
    done: defaultdict[str, list[int]] = defaultdict(list)
    for mark in read_marks(fleet.marks):
        if mark["kind"] == "done":
            done[mark["run"]].append(mark["process"])
    gave_way = {run_id for run_id, run in runs.items() if _gave_way(run)}
    is_well = {run_id for run_id in done if runs.get(run_id, {}).get("state_type") == "COMPLETED"}
    lost = [run_id for run_id in asked if run_id not in is_well | gave_way]
    twice = [run_id for run_id, processes in done.items() if len(processes) > 1]
    unreported = [run_id for run_id in twice if len(done[run_id]) == 2 and done[run_id][0] in kills.processes]
    for run in (runs.get(run_id) for run_id in lost):
        click.echo(
            f"lost: {run['name']}, {run['state_name']} since {run['state']['timestamp']}" if run else "lost: gone"
        )
    if kills.at:
        click.echo(f"cancelled, as another run has written to their target since: {len(gave_way)}")
        click.echo(f"done in the instant before the kill, not yet reported, and so done again: {len(unreported)}")
    click.echo(f"lost: {len(lost)} doubled: {len(twice) - len(unreported)} by_hand: {len(kills.by_hand)}")


def _print_kills(kills: Kills, runs: Mapping[str, Mapping[str, Any]], fleet: Fleet) -> None:
    if not kills.at:
        return
    click.echo(f"killed, all their processes with SIGKILL: {', '.join(kills.at)}")
    worker_at = min(kills.at.values())
    crashes = {run_id: fleet.crashes(run_id) for run_id in kills.cut_off}
    noticed = [times[0] - worker_at for times in crashes.values() if times]
    builds = fleet.builds()
    # From the kill until its dbt begins again, the wait for the target's lease included.
    after = {it: [at - worker_at for at in builds.get(it, ()) if at > worker_at] for it in kills.cut_off}
    went_on = [min(seconds) for seconds in after.values() if seconds]
    click.echo(
        f"runs cut off in their work: {len(kills.cut_off)}; not noticed by the server: "
        f"{sum(not times for times in crashes.values())}; at a good end: "
        f"{sum(1 for run_id in kills.cut_off if runs[run_id]['state_type'] == 'COMPLETED')}"
    )
    for what, seconds in (("called crashed by the server", noticed), ("dbt goes on", went_on)):
        if seconds:
            p50, p95 = median_and_p95(seconds)
            click.echo(f"seconds from the kill, {what:<30} p50 {p50:6.0f}   p95 {p95:6.0f}")
    others = Counter(why for run_id, (why, _) in kills.named.items() if run_id not in kills.cut_off)
    for why, count in others.items():
        click.echo(f"not in their work, and crashed as well: {count}: {why[:150]}")
    for run_id in sorted(kills.by_hand):
        click.echo(
            f"by hand: {runs[run_id]['name']}: {kills.named.get(run_id, ('not noticed by the server', 0))[0][:150]}"
        )


def _gave_way(run: Mapping[str, Any]) -> bool:
    """Say whether a killed run did not go on, as another one has had its target since and says so."""
    return run["state_type"] == "CANCELLED" and "does not go on by itself" in str(run["state"]["message"])


def _leave(_number: int, _frame: object) -> None:
    sys.exit(1)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
