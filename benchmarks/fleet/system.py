"""Prefect as it is set up for many workers, all on this machine: PostgreSQL, Redis, API servers, services, workers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import click
import httpx

from benchmarks.databases import database_of_its_own, usual_server
from benchmarks.fleet.balancer import Balancer
from benchmarks.fleet.flows import MARKS_VARIABLE
from benchmarks.server import free_port
from flows.engine.ledger.ledger import read_ledger

POOL = "fleet"
_PATIENCE_SECONDS = 300.0
# How often a worker looks for work; Prefect's default of 10 s would be most of the start latency.
_POLL_SECONDS = 1
# The shortest that Prefect allows: how soon a run whose machine is lost can be told from one that is busy.
HEARTBEAT_SECONDS = 30


@contextmanager
def databases() -> Iterator[tuple[dict[str, Any], str, str]]:
    """Make a database for Prefect and one as warehouse, and drop them; yields the server and their names."""
    import psycopg2

    server = usual_server()
    with ExitStack() as stack:
        try:
            names = [
                stack.enter_context(database_of_its_own(server, f"fleet_{kind}"))["dbname"]
                for kind in ("prefect", "warehouse")
            ]
        except psycopg2.OperationalError as exc:
            raise click.ClickException(
                f"The fleet needs a PostgreSQL in which it may create databases: set PGHOST, PGPORT, PGUSER and "
                f"PGPASSWORD. {exc}".strip()
            ) from exc
        yield server, names[0], names[1]


class Fleet:
    """The processes of a fleet by name, any of which can be killed and started again."""

    def __init__(self, folder: Path, server: dict[str, Any], prefect_database: str, servers: int, at_once: int) -> None:
        self._folder = folder
        self._at_once = at_once
        self._redis_port = free_port()
        self._ports = {f"server {number + 1}": free_port() for number in range(servers)}
        self._balancer = Balancer(free_port(), list(self._ports.values()))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.marks = folder / "marks.jsonl"
        self.api = f"http://127.0.0.1:{self._balancer.port}/api"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TRIBUTARY_"))}
        password = f":{server['password']}" if server["password"] else ""
        address = f"{server['user']}{password}@{server['host']}:{server['port']}/{prefect_database}"
        self.environment = {
            **kept,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_WORKER_QUERY_SECONDS": str(_POLL_SECONDS),
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
            # While Redis is away a server answers some requests with an error of its own.
            "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
            "PREFECT_CLIENT_MAX_RETRIES": "8",
            "TRIBUTARY_STATE": str(folder / "state"),
            MARKS_VARIABLE: str(self.marks),
        }
        messaging = "prefect_redis.messaging"
        self._for_servers = {
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{address}",
            "PREFECT_API_DATABASE_MIGRATE_ON_START": "false",
            "PREFECT_MESSAGING_BROKER": messaging,
            "PREFECT_MESSAGING_CACHE": messaging,
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
            "PREFECT_REDIS_MESSAGING_PORT": str(self._redis_port),
            "PREFECT_REDIS_MESSAGING_DB": "0",
            "PREFECT_SERVER_DOCKET_URL": f"redis://127.0.0.1:{self._redis_port}/1",
            "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
        }
        self.http = httpx.Client(base_url=self.api, trust_env=False, timeout=60)

    def start_servers(self) -> None:
        """Start Redis, the API servers and the background services, in the order in which a cluster has to."""
        self.start_redis()
        upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
        done = subprocess.run(upgrade, env=self.environment | self._for_servers, capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(f"Prefect's database could not be made: {done.stdout}{done.stderr}")
        self._balancer.start()
        first, *others = self._ports
        # Prefect's servers register the same block types when they start, and two at once on a fresh database are in
        # each other's way: the second ends with "duplicate key value violates unique constraint uq_block_type__slug".
        self.start_server(first, registers_blocks=True)
        for name in others:
            self.start_server(name)
        self._start("services", [sys.executable, "-m", "prefect", "server", "services", "start"], is_server=True)

    def start_server(self, name: str, registers_blocks: bool = False) -> None:
        """Start an API server, or start it again, and wait until it answers."""
        port = str(self._ports[name])
        command = ["prefect", "server", "start", "--no-services", "--host", "127.0.0.1", "--port", port, "--no-ui"]
        extra = {} if registers_blocks else {"PREFECT_API_BLOCKS_REGISTER_ON_START": "false"}
        self._start(name, [sys.executable, "-m", *command], extra, is_server=True)
        self.wait(name, lambda: httpx.get(f"http://127.0.0.1:{port}/api/health", trust_env=False).is_success)

    def start_redis(self) -> None:
        """Start a Redis of its own, or start it again with what it had written down."""
        program = shutil.which("redis-server")
        if program is None:
            raise click.ClickException("The fleet needs Redis: install redis-server.")
        options = ["--port", str(self._redis_port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""]
        # Each write is on disk before it is answered: leases of targets that are held must outlive a restart.
        self._start("redis", [program, *options, "--appendonly", "yes", "--appendfsync", "always"])
        self.wait("redis", self._redis_answers)

    def start_worker(self, name: str) -> None:
        """Start a worker of the pool."""
        limit = ["--limit", str(self._at_once)]
        command = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", name, *limit]
        self._start(name, [sys.executable, *command])

    def kill(self, name: str) -> set[int]:
        """Kill a process and all that it started, as the loss of a machine does; return their ids."""
        import psutil

        process = self._processes.pop(name)
        head = psutil.Process(process.pid)
        # It is held first, so that it starts nothing more and reports the end of none of its children.
        head.suspend()
        doomed = [head, *head.children(recursive=True)]
        for each in doomed:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        process.wait()
        return {each.pid for each in doomed}

    def processes_of(self, name: str) -> set[int]:
        """Return the ids of a process and of all under it."""
        import psutil

        head = psutil.Process(self._processes[name].pid)
        return {head.pid, *(child.pid for child in head.children(recursive=True))}

    def stop(self) -> None:
        """Stop everything, and leave no process behind."""
        import psutil

        doomed: list[psutil.Process] = []
        for process in self._processes.values():
            with suppress(psutil.NoSuchProcess):
                doomed += [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            process.terminate()
        # Nothing that is measured is left to them, so they need not be waited for long.
        for each in psutil.wait_procs(doomed, timeout=10)[1]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        for process in self._processes.values():
            process.wait()
        if self._balancer.started:
            self._balancer.stop()

    def wait(self, what: str, is_so: Callable[[], object], seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait for something, past servers that do not answer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if is_so():
                    return
            if what in self._processes and self._processes[what].poll() is not None:
                break
            time.sleep(0.2)
        log = self._log(what)
        said = log.read_text()[-2000:] if log.exists() else ""
        raise click.ClickException(f"waited in vain for {what}\n{said}")

    def post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401
        """Return what the API answers; asks again for a while where it gives none, so what is asked has a key."""
        answers: list[httpx.Response] = []

        def is_answered() -> bool:
            answers.append(self.http.post(path, json=body))
            return answers[-1].status_code < 500

        self.wait(f"an answer to {path}", is_answered)
        return answers[-1].raise_for_status().json() if answers[-1].content else None

    def runs(self) -> list[dict[str, Any]]:
        """Return all flow runs that deployments have started."""
        found: list[dict[str, Any]] = []
        body = {"flow_runs": {"deployment_id": {"is_null_": False}}, "sort": "ID_DESC"}
        while page := cast(list[dict[str, Any]], self.post("/flow_runs/filter", {**body, "offset": len(found)})):
            found += page
        return found

    def crashes(self, run_id: str) -> list[float]:
        """Return when the server called a flow run crashed."""
        states = self.http.get("/flow_run_states/", params={"flow_run_id": run_id}).raise_for_status().json()
        times = (datetime.fromisoformat(state["timestamp"]) for state in states if state["type"] == "CRASHED")
        return sorted(at.timestamp() for at in times)

    def builds(self) -> dict[str, list[float]]:
        """Return when dbt began to build in each flow run, by its id."""
        begun: dict[str, list[float]] = {}
        for ledger in (self._folder / "state").glob("*/*/runs/*/ledger.jsonl"):
            head = next(read_ledger(ledger), None)
            # Another one is written at this moment.
            if head and head["kind"] == "run":
                begun.setdefault(head["run_id"], []).append(head["at"].timestamp())
        return begun

    def _redis_answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._redis_port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        return False

    def _start(
        self, name: str, command: Sequence[str], extra: dict[str, str] | None = None, is_server: bool = False
    ) -> None:
        environment = self.environment | (self._for_servers if is_server else {}) | (extra or {})
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name.replace(' ', '-').replace('/', '-')}.log"
