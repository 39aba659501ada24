"""The Prefect server of a laptop: the one that is configured, one that runs already, or a temporary one."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context

from infrastructure.errors import UpstreamUnavailable

_PROBE_SECONDS = 1.0


@contextmanager
def prefect_server(report: Callable[[str], None], meanwhile: Callable[[], None] = lambda: None) -> Iterator[str | None]:
    """Make sure that there is a Prefect server for the time of the block, and yield its address.

    None stands for a temporary one, which ends with this process and keeps its records in Prefect's own
    folder, where `prefect server start` finds them later.

    Args:
        report: told when a server has to be started, which takes about ten seconds.
        meanwhile: done while a temporary server starts, and only then.

    Raises:
        UpstreamUnavailable: a temporary server could not be started.
    """
    with server_in_reach(report) as address:
        if address:
            yield address
        else:
            report("Starting a temporary Prefect server (about ten seconds).")
            with _temporary_server(meanwhile):
                yield None


@contextmanager
def server_in_reach(report: Callable[[str], None]) -> Iterator[str | None]:
    """Use the configured server for the time of the block, else one that runs on this machine; None without both."""
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_PORT, temporary_settings

    configured = PREFECT_API_URL.value()
    # Where `prefect server start` listens on this machine: port 4200, unless Prefect is told otherwise.
    local = f"http://127.0.0.1:{PREFECT_SERVER_API_PORT.value()}/api"
    # What a temporary server would send home delays it on a machine without a network, and fills the screen.
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    if configured or not _answers(local):
        yield configured
        return
    report(f"Using the Prefect server that runs at {local}.")
    with temporary_settings({PREFECT_API_URL: local}):
        yield local


def _answers(api: str) -> bool:
    # A proxy that the environment names is for other machines, not for this one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{api}/health", timeout=_PROBE_SECONDS) as response:
            return response.read(16).strip() == b"true"
    except OSError:
        return False


@contextmanager
def _temporary_server(meanwhile: Callable[[], None]) -> Iterator[None]:
    from prefect.server.api.server import SubprocessASGIServer

    # Prefect's clients use this very instance when no address is configured.
    server = SubprocessASGIServer()
    with ThreadPoolExecutor(1) as starter:
        # The settings in force belong to the context of this thread.
        is_up = starter.submit(copy_context().run, server.start, timeout=90)
        try:
            meanwhile()
        except BaseException:
            server.stop()
            raise
    try:
        is_up.result()
    except RuntimeError as exc:
        raise UpstreamUnavailable(
            f"A temporary Prefect server did not start: {exc} Start one yourself in another window, and leave it "
            "running: uv run prefect server start"
        ) from exc
    try:
        yield
    finally:
        _deliver()
        server.stop()


def _deliver() -> None:
    """Send what Prefect's client still holds back, before the server that is to have it is gone."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)
