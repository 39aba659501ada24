"""Allow one deployment at a time per job on this machine; across machines, the second creator deletes its job."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from flows.engine.target.file_lock import locked_file
from infrastructure.errors import ConfigError, UpstreamUnavailable

WAIT_SECONDS = 300.0
_LOOK_AGAIN_SECONDS = 0.1
# A fixed number of files, whatever the number of jobs; two jobs may share one and then wait for each other.
_DIGITS = 3


@asynccontextmanager
async def job_locks(folder: Path, names: Iterable[str], wait_seconds: float = WAIT_SECONDS) -> AsyncIterator[None]:
    """Hold the locks of these jobs; they are taken in one order, so that two deployments can't deadlock.

    Raises:
        UpstreamUnavailable: another deployment of one of them does not end.
        ConfigError: a lock file can't be made, or is another user's.
    """
    shards = sorted({hashlib.sha256(name.encode()).hexdigest()[:_DIGITS] for name in names})
    deadline = time.monotonic() + wait_seconds
    async with AsyncExitStack() as stack:
        for shard in shards:
            await stack.enter_async_context(_one(folder / f"{shard}.lock", deadline))
        yield


@asynccontextmanager
async def _one(path: Path, deadline: float) -> AsyncIterator[None]:
    # The system releases it when this process ends, however it ends.
    while (file := _locked(path)) is None:
        if time.monotonic() > deadline:
            raise UpstreamUnavailable(
                f"Another deployment of the same jobs holds {path} for too long. Try again when it is done."
            )
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    try:
        yield
    finally:
        os.close(file)


def _locked(path: Path) -> int | None:
    try:
        return locked_file(path)
    except OSError as exc:
        raise ConfigError(
            f"The lock of a job can't be taken at {path}: {exc.strerror}. Free some space, or see to it that this user "
            "may write there."
        ) from exc
