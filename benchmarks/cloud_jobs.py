"""List, plan and deploy jobs of dbt Cloud over a slow network on which requests go wrong, and count what was harmed.

`python -m benchmarks.cloud_jobs` ends in `list_seconds: 1.8 plan_seconds: 9.0 lost: 0 doubled: 0`. The account is a
local server that speaks dbt Cloud's published API, answers each request after 260 ms (what a page took in
dbt-jobs-as-code#147) and closes for a while when it gets more than dbt Cloud's 5,000 requests a minute.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from deployments.dbt_cloud.apply.work import deploy, planned
from deployments.dbt_cloud.files.config import TFVARS, Config
from deployments.dbt_cloud.model.definition import JobDefinition
from deployments.dbt_cloud.model.job_object import job_object, sendable
from deployments.dbt_cloud.model.names import Owner, stamp_of
from deployments.dbt_cloud.plan.planning import Options
from deployments.dbt_cloud.plan.scope import OwnerScope
from flows.services.dbt_cloud.client import CloudClient, Json
from flows.services.dbt_cloud.settings import ACCOUNT_LIMIT_PER_MINUTE, REQUESTS_PER_MINUTE, CloudSettings
from infrastructure.console import EntryCommand
from infrastructure.errors import TributaryError

PROJECT, ENVIRONMENT, OTHER_PROJECT = 11, 22, 12
TEAM = "analytics-team"
ROUNDS = 5
JOBS_PER_BRANCH = 3
# Branches that two clients deploy at the same moment, from machines that share no lock.
CONTENDED_SHARE = 0.05


@dataclass
class Server:
    """The account, in a process of its own."""

    settings: CloudSettings

    def control(self, **wanted: object) -> dict[str, Any]:
        """Set latency and faults, and return what has been sent so far."""
        body = json.dumps(wanted).encode()
        with urllib.request.urlopen(f"{self.settings.host}/control", data=body, timeout=60) as answer:
            return json.loads(answer.read())


@dataclass
class Tally:
    """What a deployment of many branches came to."""

    seconds: float = 0.0
    lost: int = 0
    doubled: int = 0
    touched: int = 0
    failed: list[str] = field(default_factory=list[str])
    requests: int = 0


@click.command(cls=EntryCommand)
@click.option("--latency-ms", default=260.0, show_default=True)
@click.option("--jobs", default=5600, show_default=True, help="Of others, in the account.")
@click.option("--planned", "planned_jobs", default=500, show_default=True, help="Jobs with variables to plan.")
@click.option("--branches", default=3000, show_default=True)
@click.option("--clients", default=50, show_default=True)
@click.option("--faults", default=0.01, show_default=True, help="Share of requests that go wrong.")
@click.option("--limit/--no-limit", default=True, help="Close the account above 5,000 requests a minute.")
def main(
    latency_ms: float, jobs: int, planned_jobs: int, branches: int, clients: int, faults: float, limit: bool
) -> None:
    """List, plan, deploy, count."""
    with _server() as server, tempfile.TemporaryDirectory(prefix="cloud-jobs-") as name:
        names = {PROJECT: ["DBT_REGION", "DBT_SCHEMA"]}
        server.control(variables=names, jobs=_others(server.settings.account_id, jobs))
        scope, config = _planned_jobs(planned_jobs)
        asyncio.run(_deploy(replace(server.settings, requests_per_minute=1e6), config, scope, Path(name)))
        server.control(latency_seconds=latency_ms / 1000, limit_per_minute=ACCOUNT_LIMIT_PER_MINUTE * 10)
        listing = [asyncio.run(_list(server.settings, jobs)) for _ in range(ROUNDS)]
        print(f"list of {jobs:,} jobs: {_spread(listing)}")
        bulk = [asyncio.run(_plan(server.settings, config, scope)) for _ in range(ROUNDS)]
        print(f"plan of {planned_jobs} jobs, variables read in the list: {_spread(bulk)}")
        server.control(lists_variables=False)
        single = [asyncio.run(_plan(server.settings, config, scope)) for _ in range(ROUNDS)]
        print(f"plan of {planned_jobs} jobs, variables read one by one: {_spread(single)}")
        server.control(lists_variables=True, rate=faults, limit_per_minute=ACCOUNT_LIMIT_PER_MINUTE if limit else None)
        tally = asyncio.run(_deploy_branches(server, branches, clients, limit, Path(name)))
    _print_tally(tally, branches, clients)
    print(
        f"list_seconds: {statistics.median(listing):.1f} plan_seconds: {statistics.median(single):.1f} "
        f"lost: {tally.lost} doubled: {tally.doubled}"
    )
    sys.exit(1 if tally.lost or tally.doubled or tally.touched else 0)


@contextmanager
def _server() -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.support.cloud.server"]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as child:
        try:
            assert child.stdout is not None
            said = dict(word.split("=", 1) for word in child.stdout.readline().split())
            account, token, host = (said[f"DBTCLOUD_{it}"] for it in ("ACCOUNT_ID", "TOKEN", "HOST_URL"))
            # An answer that is lost on a real network is waited for longer; here only for the clock's sake.
            yield Server(CloudSettings(int(account), token, host, timeout_seconds=5.0))
        finally:
            child.kill()


def _others(account_id: int, count: int) -> list[Json]:
    """Return jobs of others to fill the account with, some of whose names look like ours."""
    now, definition = datetime.now(UTC), JobDefinition(name="other", execute_steps=["dbt build"])
    jobs: list[Json] = []
    for number in range(count):
        name = f"{TEAM}-feature-b{number}-user-made-by-hand" if number % 10 == 0 else f"other {number}"
        document = job_object(definition, name, account_id, OTHER_PROJECT, ENVIRONMENT, now)
        jobs.append(sendable({}, {**document, "description": "of somebody else"}))
    return jobs


def _planned_jobs(count: int) -> tuple[OwnerScope, Config]:
    jobs = tuple(
        JobDefinition(
            name=f"job-{number:04}",
            execute_steps=[f"dbt build --select tag:t{number}"],
            schedule_hours=[number % 24],
            environment_variables={"DBT_REGION": "eu", "DBT_SCHEMA": f"schema_{number}"},
        )
        for number in range(count)
    )
    return OwnerScope(Owner("planners"), (PROJECT,)), Config(TFVARS, jobs, None, PROJECT, ENVIRONMENT)


async def _deploy(settings: CloudSettings, config: Config, scope: OwnerScope, state: Path) -> None:
    async with CloudClient(settings) as client:
        _, applied, _ = await deploy(client, config, scope, state)
        assert not applied.failed, applied.failed


async def _list(settings: CloudSettings, count: int) -> float:
    async with CloudClient(settings) as client:
        began = time.monotonic()
        found = await client.jobs(project_ids=[OTHER_PROJECT])
        seconds = time.monotonic() - began
    assert len(found) == count, f"{len(found)} of {count} jobs"
    return seconds


async def _plan(settings: CloudSettings, config: Config, scope: OwnerScope) -> float:
    async with CloudClient(settings) as client:
        began = time.monotonic()
        changes, _ = await planned(client, config, scope, Options())
        seconds = time.monotonic() - began
    assert changes.is_empty, changes.text()
    return seconds


async def _deploy_branches(server: Server, branches: int, clients: int, limit: bool, folder: Path) -> Tally:
    jobs = tuple(
        JobDefinition(name=name, execute_steps=["dbt build"], schedule_hours=[6])
        for name in ("core-daily-refresh", "customer-analytics", "marketing")[:JOBS_PER_BRANCH]
    )
    config = Config(TFVARS, jobs, None, PROJECT, ENVIRONMENT)
    owners = [Owner(TEAM, f"feature/b{number}", "user") for number in range(branches)]
    queues = [owners[number::clients] for number in range(clients)]
    # The next client's, deployed first by both.
    shared = max(1, round(branches * CONTENDED_SHARE / clients))
    queues = [
        [*queue[:shared], *queues[(number + 1) % clients][:shared], *queue[shared:]]
        for number, queue in enumerate(queues)
    ]
    # Clients do not know of each other: each keeps to its share of the account's limit.
    rate = REQUESTS_PER_MINUTE / clients if limit else 1e6
    settings = replace(server.settings, requests_per_minute=rate)
    before = await _all_jobs(server.settings)
    sent = sum(server.control()["requests"].values())
    tally = Tally()
    began = time.monotonic()
    await asyncio.gather(
        *(_deploy_queue(settings, config, queue, folder / str(it), tally) for it, queue in enumerate(queues))
    )
    tally.seconds = time.monotonic() - began
    said = server.control(rate=0.0, latency_seconds=0.0, limit_per_minute=None)
    tally.requests = sum(said["requests"].values()) - sent
    assert not said["mistakes"], said["mistakes"]
    _count(tally, before, await _all_jobs(server.settings), owners, jobs)
    return tally


async def _deploy_queue(
    settings: CloudSettings, config: Config, owners: Sequence[Owner], state: Path, tally: Tally
) -> None:
    """Deploy branches one after another, as a runner of a pipeline does; what fails is deployed again, once."""
    async with CloudClient(settings) as client:
        # Runners do not all start in the same millisecond.
        await asyncio.sleep(random.random())
        for owner in owners:
            scope = OwnerScope(owner, (PROJECT,))
            for is_last in (False, True):
                try:
                    _, applied, _ = await deploy(client, config, scope, state)
                    if not applied.failed:
                        break
                    problem = "; ".join(applied.failed.values())
                except TributaryError as exc:
                    problem = str(exc)
                if is_last:
                    tally.failed.append(problem)


async def _all_jobs(settings: CloudSettings) -> list[Json]:
    async with CloudClient(replace(settings, requests_per_minute=1e6, timeout_seconds=60.0)) as client:
        return await client.jobs()


def _count(
    tally: Tally, before: Sequence[Json], after: Sequence[Json], owners: Sequence[Owner], jobs: Sequence[JobDefinition]
) -> None:
    there = Counter(job["name"] for job in after if stamp_of(job) is not None)
    wanted = [owner.job_name(job.name) for owner in owners for job in jobs]
    tally.lost = sum(1 for name in wanted if not there[name])
    tally.doubled = sum(there[name] - 1 for name in wanted if there[name] > 1)
    now = {job["id"]: job for job in after}
    tally.touched = sum(1 for job in before if now.get(job["id"]) != job)


def _print_tally(tally: Tally, branches: int, clients: int) -> None:
    minutes = tally.seconds / 60
    print(
        f"deployment of {branches:,} branches with {JOBS_PER_BRANCH} jobs by {clients} clients: {tally.seconds:.0f} s, "
        f"{tally.requests:,} requests, {tally.requests / minutes:,.0f} a minute; {len(tally.failed)} failed twice, "
        f"{tally.touched} jobs of others touched"
    )
    for problem in tally.failed[:3]:
        print(f"  {problem}")


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s (median of {len(seconds)}, {min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
