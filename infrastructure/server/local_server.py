"""Find or start a Prefect server: the configured one, one on this machine, or a temporary one."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context

from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.private_files import private_folder
from infrastructure.targets.target_file import require_declared

_PROBE_SECONDS = 1.0


@contextmanager
def prefect_server(
    report: Callable[[str], None], meanwhile: Callable[[], None] = lambda: None, targets: Sequence[str] = ()
) -> Iterator[str | None]:
    """Provide a Prefect server while the block runs, and yield its address.

    None stands for a temporary one, which ends with this process and keeps its records in Prefect's own
    folder, where `prefect server start` finds them later.

    Args:
        report: called with a sentence when a server has to be started, which takes about ten seconds.
        meanwhile: called while a temporary server starts, and only then.
        targets: what the server is wanted for; none is started for a target that targets.yml does not have.

    Raises:
        ConfigError: there is no such target, or the folder of a temporary server's database can't be written to.
        UpstreamUnavailable: a temporary server could not be started.
    """
    with server_in_reach(report) as address:
        if address:
            yield address
        else:
            for target in targets:
                require_declared(target)
            _make_home()
            report("Starting a temporary Prefect server (about ten seconds).")
            with _temporary_server(meanwhile):
                yield None


@contextmanager
def server_in_reach(report: Callable[[str], None]) -> Iterator[str | None]:
    """Use the configured server while the block runs, else one on this machine; None where there is neither."""
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_PORT, temporary_settings

    configured = PREFECT_API_URL.value()
    # Where `prefect server start` listens on this machine: port 4200, unless Prefect's settings differ.
    local = f"http://127.0.0.1:{PREFECT_SERVER_API_PORT.value()}/api"
    # A temporary server's telemetry delays it on a machine without a network, and fills the screen.
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    if configured or not _answers(local):
        yield configured
        return
    report(f"Using the Prefect server that runs at {local}.")
    with temporary_settings({PREFECT_API_URL: local}):
        yield local


def _answers(api: str) -> bool:
    # Proxies of the environment are for other machines, not for this one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{api}/health", timeout=_PROBE_SECONDS) as response:
            return response.read(16).strip() == b"true"
    except OSError:
        return False


def _make_home() -> None:
    """Make Prefect's own folder; Prefect only warns where it can't, and its server then waits for ever."""
    from prefect.settings import PREFECT_HOME

    home = PREFECT_HOME.value()
    problem = "it can't be written to"
    try:
        private_folder(home)
    except OSError as exc:
        problem = exc.strerror or problem
    if not os.access(home, os.W_OK | os.X_OK):
        raise ConfigError(
            f"Prefect keeps its database in {home}: {problem}. Name a folder that can be written to: "
            "PREFECT_HOME=/path/to/folder"
        )


@contextmanager
def _temporary_server(meanwhile: Callable[[], None]) -> Iterator[None]:
    from prefect.server.api.server import SubprocessASGIServer

    # Prefect's clients use this very instance when no address is configured.
    server = SubprocessASGIServer()
    with ThreadPoolExecutor(1) as starter:
        # The current settings belong to the context of this thread.
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
    """Send what Prefect's client has queued, before its temporary server is gone."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)
