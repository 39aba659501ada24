"""`tributary serve`: one process on one machine that runs every deployment of schedules.yml, without a worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.cli.options import examples
from infrastructure.console import say
from infrastructure.errors import ConfigError
from infrastructure.plain_text import count_of
from infrastructure.server.automations import RESUMES_TAG

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from deployments.schedules.declared import DeclaredDeployment


@click.command(
    epilog=examples(
        "tributary serve",
        "TRIBUTARY_TARGET=dev tributary serve",
        "tributary serve --target prod --limit 2",
    )
)
@click.option("--target", "-t", metavar="T", help="Only the deployments of this target.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="How many runs at once, of all deployments together.",
)
@click.option(
    "--poll-seconds", type=click.IntRange(1), default=5, show_default=True, help="How often to poll for runs."
)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Read this file in place of the workspace's schedules.yml.",
)
def serve(target: str | None, limit: int, poll_seconds: int, path: Path | None) -> None:
    """Run the deployments of the workspace's schedules.yml in this process, until Ctrl-C or SIGTERM.

    Needs a Prefect server that keeps running, and no worker. Stopping ends the running flows, and pauses the schedules
    until the next start.
    """
    import asyncio

    from deployments.schedules.needed_services import with_their_services
    from deployments.schedules.schedule_file import load_schedules
    from infrastructure.server.client import connect
    from infrastructure.server.local_server import server_in_reach

    _, declared = load_schedules(path)
    chosen = [it for it in declared if target is None or it.target == target]
    if not chosen:
        there = sorted({it.target for it in declared if it.target})
        raise ConfigError(f"The schedules file has no deployment of target {target!r}; it has {there}.")
    with server_in_reach(say) as address:
        if address is None:
            raise ConfigError(
                "No Prefect server is running, and schedules need one that keeps running. Start it in another "
                "window and leave it running: uv run prefect server start"
            )
        stops = (KeyboardInterrupt, asyncio.CancelledError)
        with connect(say) as server, suppress(*stops):
            # Fails here if the server does not answer or refuses the credentials, before anything is announced.
            server.client.read_flows(limit=1)
            chosen, notes = with_their_services(server, chosen)
            if not chosen:
                raise ConfigError(" ".join(notes))
            for note in notes:
                say(note)
            with _warm_children(chosen):
                _announce(chosen, address)
                asyncio.run(_serve(chosen, limit, poll_seconds))
    say("Stopped. Nothing is running any more.")


def _announce(declared: Sequence[DeclaredDeployment], address: str) -> None:
    now = datetime.now(UTC)
    say(f"Serving {count_of(len(declared), 'deployment')} of {address}:")
    width = max(len(it.full_name) for it in declared)
    for it in declared:
        times = it.next_runs(now)
        when = f"next {times[0]:%a %Y-%m-%d %H:%M %Z}" if times else "paused" if it.paused else "when started"
        say(f"  {it.full_name:{width}}  {it.target or '':10}  {when}")
    by_hand = next((it for it in declared if it.cron is None), declared[0])
    say(f"Start one now: uv run prefect deployment run {by_hand.full_name}\nCtrl-C stops.")


@contextmanager
def _warm_children(declared: Sequence[DeclaredDeployment]) -> Iterator[None]:
    """Start runs as forks of a process that has imported the flows, while the block runs.

    Prefect starts each run as a new interpreter, which first spends seconds on imports. Measured on 21 November 2026 on
    a machine with ten runnable processes per core: an empty run took 5.4 s in place of 9.6 s. Prefect asks
    `multiprocessing` for the method by name and has no setting for it, so the answer is changed here, in this process
    alone. On Linux only: elsewhere, system libraries do not survive a fork.
    """
    import multiprocessing

    if sys.platform != "linux":
        yield
        return
    given = multiprocessing.get_context
    forking = multiprocessing.get_context("forkserver")
    modules = sorted({it.entrypoint.rpartition(".")[0] for it in declared})
    # It starts with the first run; a module that can't be imported ahead is imported by the run.
    forking.set_forkserver_preload(["prefect.flow_engine", "prefect.task_engine", *modules])

    def get_context(method: str | None = None) -> BaseContext:
        return forking if method == "spawn" else given(method)

    multiprocessing.get_context = get_context
    try:
        yield
    finally:
        multiprocessing.get_context = given


async def _serve(declared: Sequence[DeclaredDeployment], limit: int, poll_seconds: int) -> None:
    import asyncio

    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.runner import Runner
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    loop, serving = asyncio.get_running_loop(), asyncio.current_task()
    assert serving is not None

    class _Runner(Runner):
        def handle_sigterm(self, *args: object, **kwargs: object) -> None:
            # Prefect's own ends the process without waiting for what it tells to stop. This is what Ctrl-C does; SIGINT
            # itself is ignored by what a script starts in its background.
            loop.call_soon_threadsafe(serving.cancel)

    runner = _Runner(name="tributary", limit=limit, query_seconds=poll_seconds, pause_on_shutdown=True)
    for it in declared:
        strategy = ConcurrencyLimitStrategy(it.when_busy)
        # Given as a flow, which is here already, and not as an entrypoint: a run then needs neither a look-up of its
        # deployment's code nor Prefect's command line.
        await runner.aadd_flow(
            it.flow.with_options(retries=it.retries, retry_delay_seconds=it.retry_delay_seconds),
            name=it.name,
            schedule=Cron(it.cron, timezone=it.time_zone) if it.cron else None,
            paused=it.paused,
            concurrency_limit=ConcurrencyLimitConfig(limit=it.limit, collision_strategy=strategy) if it.limit else None,
            parameters=it.parameters,
            description=it.description,
            # What begins a crashed run again is made by `deployments.apply`.
            tags=[tag for tag in it.tags if not tag.startswith(RESUMES_TAG)],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    await runner.start()
