"""A Prefect server that has not answered for so long that a run gave up its target is not waited for much longer.

Prefect's client asks six times and waits a minute for each answer: a process that was cut off would go on for many
minutes after its work was stopped, and say why only then.

Importing this module is cheap: Prefect is imported in the function that takes its client.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

# How long an answer of a server is waited for that is away, once.
ANSWER_SECONDS = 5.0

_away = threading.Event()


def note_server_away(is_away: bool) -> None:
    """Note for this process that the server does not answer, or that it answers again."""
    if is_away and not _away.is_set():
        # What is registered last is called first, before Prefect's services wait for what they hold.
        with suppress(RuntimeError):  # The process ends already.
            cast(Any, threading)._register_atexit(_leave_what_waits)
    if is_away:
        _away.set()
    else:
        _away.clear()


def is_server_away() -> bool:
    """Say whether this process has given up waiting for the server."""
    return _away.is_set()


def _leave_what_waits() -> None:
    """Have Prefect's services give up the events and log lines that they hold; each would be tried for a minute.

    The ledger has all of them, and the next run on the machine sends those of nodes.
    """
    if not is_server_away():
        return
    from prefect._internal.concurrency import logger, services

    # What would be said of each of them is known by now.
    logger.disabled = True
    for service in list(cast(Any, services)._active_services):
        loop, task = service._loop, service._task
        if loop and task:
            with suppress(RuntimeError):  # The loop is closed.
                loop.call_soon_threadsafe(task.cancel)


@contextmanager
def not_waiting_for_one_away(client: SyncPrefectClient | None = None) -> Iterator[None]:
    """Have a server that is away asked once in the block, and waited for for seconds; others are asked as usual.

    Args:
        client: one that was made before; those that are made in the block are meant in any case.
    """
    if not is_server_away():
        yield
        return
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    if client is not None:
        cast(Any, client)._client.timeout = ANSWER_SECONDS
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: ANSWER_SECONDS}):
        yield
