"""What is measured and what is killed: a Prefect server, a receiver, a served deployment and a worker."""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx

from benchmarks.server import free_port
from benchmarks.webhook.deliveries import CONNECTIONS, SECRET, Answer, body_of, send, send_once
from flows.engine.context.state import dbt_log

_FLOW = "dbt-transformation-flow"
# How often a served deployment and a worker look for work. Prefect's default of 10 s would be most of what is measured.
POLL_SECONDS = 1
_PATIENCE_SECONDS = 300.0
# When nothing new has been started for this long, what has not been started by then is lost.
_LOST_AFTER_SECONDS = 90.0
# While the receiver is attacked: how often a sync ends.
_SYNC_EVERY_SECONDS = 0.2
_FIRST_ATTACKED_JOB = 2_000_000
_ACCEPT_SECONDS = "tributary_webhook_accept_seconds"


@dataclass
class Latencies:
    """Seconds of one way of running: from a delivery to dbt's child and its first word, from asking to an empty run."""

    name: str
    dbt_seconds: list[float] = field(default_factory=list[float])
    word_seconds: list[float] = field(default_factory=list[float])
    empty_seconds: list[float] = field(default_factory=list[float])


@dataclass
class Bursts:
    """What became of deliveries that were sent three times while things were killed."""

    events: int
    answers: Counter[str]
    lost: int
    doubled: int
    until_started_seconds: float
    runs: int


@dataclass
class Load:
    """What one receiver bears."""

    per_second: float
    p50_ms: float
    p95_ms: float
    memory_megabytes: float


@dataclass
class Attacked:
    """What became of deliveries to a receiver that was attacked."""

    answers: list[Answer] = field(default_factory=list["Answer"])
    lost: int = 0
    attacks: dict[str, int] = field(default_factory=dict[str, int])
    most_files: int = 0
    most_megabytes: float = 0.0
    log_bytes: int = 0
    own_ms: float = 0.0
    receiver_seconds: float = 0.0
    enemy_seconds: float = 0.0


class Bench:
    """A Prefect server and a receiver that can be killed, and what is asked of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {"prefect": free_port(), "receiver": free_port()}
        self._api = f"http://127.0.0.1:{self._ports['prefect']}/api"
        self._url = f"http://127.0.0.1:{self._ports['receiver']}/webhooks/airbyte"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._project = _write_project(folder)
        self._http = httpx.Client(base_url=self._api, trust_env=False, timeout=60)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TRIBUTARY_"))}
        self._environment = {
            **kept,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self._api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_RUNNER_POLL_FREQUENCY": str(POLL_SECONDS),
            "PREFECT_WORKER_QUERY_SECONDS": str(POLL_SECONDS),
            "TRIBUTARY_STATE": str(folder / "state"),
            "TRIBUTARY_WEBHOOK_SECRET": SECRET,
            "TRIBUTARY_WEBHOOK_TARGET": "bench",
            "TRIBUTARY_WEBHOOK_PROJECT_DIR": str(self._project),
            "TRIBUTARY_WEBHOOK_PREFECT_RETRY_SECONDS": "2",
        }

    def start_prefect(self) -> None:
        """Start the server, or start it again, and wait until it answers."""
        port = str(self._ports["prefect"])
        self._start("prefect", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui")
        self._wait("Prefect", lambda: self._http.get("/health").is_success)

    def start_receiver(self, deployment: str, spool: str) -> None:
        """Start the receiver, or start it again, and wait until it takes deliveries."""
        self._environment["TRIBUTARY_WEBHOOK_DEPLOYMENT"] = f"{_FLOW}/{deployment}"
        self._environment["TRIBUTARY_WEBHOOK_SPOOL"] = str(self._folder / f"{spool}.db")
        self._start("receiver", "deployments.webhook", "serve", "--port", str(self._ports["receiver"]))
        ready = f"http://127.0.0.1:{self._ports['receiver']}/ready"
        self._wait("the receiver", lambda: self._http.get(ready).is_success)

    def set_up(self) -> None:
        """Register the target, and make the deployments that no process serves."""
        targets = self._folder / "targets.yml"
        targets.write_text(
            "profile: bench\ndefault: bench\ntargets:\n  bench:\n    warehouse: duckdb\n"
            f"    path: {self._folder / 'bench.duckdb'}\n    schema: main\n    threads: 2\n"
        )
        command = ["-m", "infrastructure.setup_profiles", "--blocks-only", "--targets-file", str(targets)]
        subprocess.run([sys.executable, *command], env=self._environment, check=True, stdout=subprocess.DEVNULL)
        pool = {"name": "bench", "type": "process", "base_job_template": {}}
        self._http.post("/work_pools/", json=pool).raise_for_status()
        self._deploy(_FLOW, "flows.pipelines.transform.dbt_transformation_flow", "worker", "bench")
        self._deploy("empty", "benchmarks.webhook.served_flows.empty", "worker", "bench")
        self._deploy(_FLOW, "flows.pipelines.transform.dbt_transformation_flow", "nobody", None)

    def latencies(self, way: str, rounds: int) -> Latencies:
        """Deliver one sync after the other to an idle machine, with an empty run between; the first is not counted."""
        if way == "served":
            self._start(way, "benchmarks.webhook.served_flows", str(self._project))
        else:
            self._start(way, "prefect", "worker", "start", "--pool", "bench", "--type", "process")
        self._wait(
            f"the {way} deployment", lambda: bool(self._deployment(_FLOW, way) and self._deployment("empty", way))
        )
        self.start_receiver(way, spool=way)
        measured = Latencies(way)
        for number in range(rounds + 1):
            started, spoke = self._deliver_one(way, number + 1)
            empty = self._start_empty(way)
            if number:
                measured.dbt_seconds.append(started)
                measured.word_seconds.append(spoke)
                measured.empty_seconds.append(empty)
        self._end("receiver")
        self._end(way)
        return measured

    def bursts(self, deliveries: int, chance: random.Random) -> Bursts:
        """Send every sync three times, in bursts, and kill the receiver and the server once each on the way."""
        events = [(CONNECTIONS[number % len(CONNECTIONS)], 1000 + number) for number in range(deliveries)]
        self.start_receiver("nobody", spool="bursts")
        started = time.monotonic()
        answers = asyncio.run(self._send_bursts(events, chance))
        deployment_id = self._deployment(_FLOW, "nobody")
        previous, since = -1, time.monotonic()
        while time.monotonic() - since < _LOST_AFTER_SECONDS:
            count = self._count(deployment_id)
            if count != previous:
                previous, since = count, time.monotonic()
                if count >= deliveries:
                    break
            time.sleep(0.25)
        until_started = time.monotonic() - started
        time.sleep(2)  # For what might be too many.
        tags = Counter(tag for run in self._runs(deployment_id) for tag in run["tags"])
        expected = [f"airbyte-sync:{connection}:{job}" for connection, job in events]
        self._end("receiver")
        return Bursts(
            deliveries,
            answers,
            lost=sum(1 for tag in expected if not tags[tag]),
            doubled=sum(1 for count in tags.values() if count > 1),
            until_started_seconds=until_started,
            runs=self._count(deployment_id),
        )

    def load(self, requests: int) -> Load:
        """Deliver as fast as this machine can, to a receiver whose Prefect is away."""
        import psutil

        self._end("prefect")
        self.start_receiver("nobody", spool="load")
        process = psutil.Process(self._processes["receiver"].pid)
        bodies = [body_of(CONNECTIONS[number % len(CONNECTIONS)], 1_000_000 + number) for number in range(requests)]
        started = time.perf_counter()
        answers = asyncio.run(send(self._ports["receiver"], bodies))
        seconds = time.perf_counter() - started
        stored = [answer.seconds for answer in answers if answer.outcome == "202"]
        if len(stored) != requests:
            raise click.ClickException(f"{requests - len(stored)} of {requests} deliveries were not stored")
        cuts = statistics.quantiles(stored, n=100)
        return Load(requests / seconds, cuts[49] * 1000, cuts[94] * 1000, process.memory_full_info().uss / 1e6)

    def attacked(self, seconds: float) -> Attacked:
        """Deliver a few syncs a second, each once over a connection of its own, while the receiver is attacked."""
        from deployments.webhook.inbox.spool import Spool

        self.start_receiver("nobody", spool="attacked")
        measured = asyncio.run(self._attacked(seconds))
        self._end("receiver")
        with closing(Spool(Path(self._environment["TRIBUTARY_WEBHOOK_SPOOL"]))) as spool:
            stored = {event.delivery.job_id for event in spool.events(limit=-1)}
        for job, answer in enumerate(measured.answers):
            measured.lost += answer.outcome != "202" or _FIRST_ATTACKED_JOB + job not in stored
        measured.log_bytes = Path(self._log("receiver")).stat().st_size
        return measured

    async def _attacked(self, seconds: float) -> Attacked:
        import psutil

        port = self._ports["receiver"]
        process = psutil.Process(self._processes["receiver"].pid)
        enemy = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.webhook.attacks", str(port), str(seconds), stdout=subprocess.PIPE
        )
        attackers = psutil.Process(enemy.pid)
        measured = Attacked()
        sending: list[asyncio.Task[Answer]] = []
        for job in range(round(seconds / _SYNC_EVERY_SECONDS)):
            body = body_of(CONNECTIONS[job % len(CONNECTIONS)], _FIRST_ATTACKED_JOB + job)
            sending.append(asyncio.create_task(send_once(port, body)))
            if job % 5 == 0:
                measured.most_files = max(measured.most_files, process.num_fds())
                measured.most_megabytes = max(measured.most_megabytes, process.memory_full_info().uss / 1e6)
            await asyncio.sleep(_SYNC_EVERY_SECONDS)
            measured.enemy_seconds = _processor_seconds(attackers, measured.enemy_seconds)
        measured.answers = await asyncio.gather(*sending)
        attacks, _ = await enemy.communicate()
        measured.receiver_seconds = _processor_seconds(process, 0.0)
        measured.own_ms = self._own_ms()
        measured.attacks = json.loads(attacks)
        return measured

    def _own_ms(self) -> float:
        """Return how long the receiver has had a delivery in its hands, from its head to its answer, on average."""
        page = self._http.get(f"http://127.0.0.1:{self._ports['receiver']}/metrics").raise_for_status().text
        of = dict(line.split() for line in page.splitlines() if line.startswith(_ACCEPT_SECONDS) and "{" not in line)
        return 1000 * float(of[f"{_ACCEPT_SECONDS}_sum"]) / max(1.0, float(of[f"{_ACCEPT_SECONDS}_count"]))

    def stop(self) -> None:
        """Stop everything."""
        for name in list(self._processes):
            self._end(name)

    def _deliver_one(self, way: str, job: int) -> tuple[float, float]:
        """Deliver a sync, wait until its run has ended; return the seconds to dbt's child and to dbt's first word."""
        asked_at = time.time()
        headers = {"x-api-key": SECRET}
        body = body_of(CONNECTIONS[0], job)
        httpx.post(self._url, content=body, headers=headers, trust_env=False).raise_for_status()
        deployment_id = self._deployment(_FLOW, way)
        self._wait_for_runs(deployment_id, job)
        newest = max(self._runs(deployment_id), key=lambda run: str(run["created"]))
        # The engine names a run's folder after the moment in which it starts the child; it holds dbt's own log.
        folder = min((self._folder / "state").rglob(f"runs/*-build-{newest['id'][:30]}*"))
        started_at = datetime.strptime(folder.name.partition("-")[0], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
        with dbt_log(folder).open() as lines:
            spoke_at = datetime.fromisoformat(json.loads(lines.readline())["info"]["ts"])
        return started_at.timestamp() - asked_at, spoke_at.timestamp() - asked_at

    def _start_empty(self, way: str) -> float:
        """Return the seconds from asking for an empty flow run to its start."""
        deployment_id = self._deployment("empty", way)
        asked_at = time.time()
        run_id = (
            self._http.post(f"/deployments/{deployment_id}/create_flow_run", json={}).raise_for_status().json()["id"]
        )
        while True:
            run = self._http.get(f"/flow_runs/{run_id}").json()
            if run["state_type"] in ("FAILED", "CRASHED"):
                raise click.ClickException(f"an empty run failed ({way}); see its log: {run['state']['message']}")
            if run["state_type"] == "COMPLETED":
                return datetime.fromisoformat(run["start_time"]).timestamp() - asked_at
            time.sleep(0.1)

    async def _send_bursts(self, events: Sequence[tuple[str, int]], chance: random.Random) -> Counter[str]:
        """Send in bursts, of which two are met by a kill."""
        copies = [list(events) for _ in range(3)]
        for copy in copies:
            chance.shuffle(copy)
        order = [event for copy in copies for event in copy]
        size = max(1, len(order) // 15)
        bursts = [order[start : start + size] for start in range(0, len(order), size)]
        victims = {len(bursts) // 4: "receiver", len(bursts) // 2: "prefect"}
        answers: Counter[str] = Counter()
        for number, burst in enumerate(bursts):
            sending = asyncio.create_task(send(self._ports["receiver"], [body_of(*event) for event in burst]))
            if number in victims:
                await asyncio.sleep(chance.uniform(0.01, 0.1))
                self._kill(victims[number])
            answers.update(answer.outcome for answer in await sending)
            if victims.get(number) == "receiver":
                await asyncio.to_thread(self.start_receiver, "nobody", "bursts")
            elif victims.get(number - 2) == "prefect":
                # Two bursts come while it is away.
                await asyncio.to_thread(self.start_prefect)
        return answers

    def _deploy(self, flow: str, entrypoint: str, name: str, pool: str | None) -> None:
        flow_id = self._http.post("/flows/", json={"name": flow}).raise_for_status().json()["id"]
        deployment: dict[str, Any] = {
            "name": name,
            "flow_id": flow_id,
            "entrypoint": entrypoint,
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(Path.cwd())}}],
            "parameters": {"project_dir": str(self._project)} if flow == _FLOW else {},
        }
        if pool:
            deployment["work_pool_name"] = pool
        self._http.post("/deployments/", json=deployment).raise_for_status()

    def _deployment(self, flow: str, name: str) -> str:
        answer = self._http.get(f"/deployments/name/{flow}/{name}")
        return answer.json()["id"] if answer.is_success else ""

    def _count(self, deployment_id: str) -> int:
        return self._http.post("/flow_runs/count", json=_of(deployment_id)).json()

    def _runs(self, deployment_id: str) -> Iterator[Mapping[str, Any]]:
        offset = 0
        while page := self._http.post("/flow_runs/filter", json=_of(deployment_id) | {"offset": offset}).json():
            yield from page
            offset += len(page)

    def _wait_for_runs(self, deployment_id: str, count: int) -> None:
        body = _of(deployment_id)
        body["flow_runs"]["state"] = {"type": {"any_": ["COMPLETED"]}}

        def are_done() -> bool:
            failed = [run for run in self._runs(deployment_id) if run["state_type"] in ("FAILED", "CRASHED")]
            if failed:
                raise click.ClickException(f"a run failed: {failed[0]['state']['message']}")
            return self._http.post("/flow_runs/count", json=body).json() >= count

        self._wait("the run", are_done)

    def _start(self, name: str, *command: str) -> None:
        with Path(self._log(name)).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command], env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )

    def _kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _log(self, name: str) -> str:
        return str(self._folder / f"{name}.log")

    def _wait(self, what: str, is_so: Any) -> None:  # noqa: ANN401
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if is_so():
                    return
            time.sleep(0.2)
        raise click.ClickException(f"waited {_PATIENCE_SECONDS:.0f} s for {what}")


def _write_project(folder: Path) -> Path:
    """Write a project of one source table, a staging view and a mart, and the table."""
    import duckdb

    project = folder / "project"
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text(
        "name: bench\nversion: '1.0'\nprofile: bench\nflags: {send_anonymous_usage_stats: false}\n"
    )
    meta = {"airbyte_connection_id": CONNECTIONS}
    source = {"name": "ads", "schema": "raw", "tables": [{"name": "clicks"}], "config": {"meta": meta}}
    (project / "models" / "sources.yml").write_text(json.dumps({"sources": [source]}))
    (project / "models" / "stg_ads__clicks.sql").write_text("select * from {{ source('ads', 'clicks') }}\n")
    (project / "models" / "clicks.sql").write_text("select count(*) as clicks from {{ ref('stg_ads__clicks') }}\n")
    with duckdb.connect(str(folder / "bench.duckdb")) as connection:
        connection.execute("create schema raw; create table raw.clicks as select range as id from range(100)")
    return project


def _of(deployment_id: str) -> dict[str, Any]:
    return {"flow_runs": {"deployment_id": {"any_": [deployment_id]}}}


def _processor_seconds(process: Any, known: float) -> float:  # noqa: ANN401
    """Return what a process has used of a core so far, or what is known where it has ended."""
    import psutil

    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        return known
    return used.user + used.system
