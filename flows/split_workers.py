"""Workers of a split build's own, on this machine: `python -m flows.split_workers NAME LIMIT` serves them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import click

from infrastructure.console import EntryCommand
from infrastructure.errors import UpstreamUnavailable

_START_SECONDS = 180.0


@contextmanager
def local_workers(count: int) -> Iterator[str]:
    """Serve `build_part` for the time of the block, so many runs at once, and yield the deployment's name.

    Raises:
        UpstreamUnavailable: they did not start.
    """
    import os

    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL

    name = f"split-{uuid4().hex[:8]}"
    deployment = f"build-part/{name}"
    environment = {**os.environ, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    if address := PREFECT_API_URL.value():
        environment["PREFECT_API_URL"] = address
    served = subprocess.Popen(
        [sys.executable, "-m", "flows.split_workers", name, str(count)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with get_client(sync_client=True) as client:
            deadline = time.monotonic() + _START_SECONDS
            while True:
                with suppress(ObjectNotFound):
                    deployment_id = client.read_deployment_by_name(deployment).id
                    break
                if served.poll() is not None or time.monotonic() > deadline:
                    raise UpstreamUnavailable(
                        "The workers of this run did not start. Start one yourself, and name its deployment with "
                        "--deployment: python -m flows.split_workers parts 2"
                    )
                time.sleep(0.2)
            yield deployment
            client.delete_deployment(deployment_id)
    finally:
        served.terminate()
        try:
            served.wait(60)
        except subprocess.TimeoutExpired:
            served.kill()
            served.wait()


@click.command(cls=EntryCommand)
@click.argument("name")
@click.argument("limit", type=int)
def main(name: str, limit: int) -> None:
    """Serve `build_part` as a deployment, so many runs at once, until stopped."""
    import asyncio

    asyncio.run(_serve(name, limit))


async def _serve(name: str, limit: int) -> None:
    from prefect import aserve
    from prefect.types.entrypoint import EntrypointType

    from flows.split import build_part

    await aserve(await build_part.ato_deployment(name, entrypoint_type=EntrypointType.MODULE_PATH), limit=limit)


if __name__ == "__main__":
    main()
