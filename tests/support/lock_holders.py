"""Who holds and waits for a target, in this process and another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from pathlib import Path
from uuid import UUID

from flows.engine.context.events import DbtEvent
from flows.engine.context.reporting import reporting_to
from flows.engine.target.file_lock import one_writer
from infrastructure.registration import limit_name
from infrastructure.workspace import ROOT


class Listener:
    """Hear what a run says while it waits."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.heard = threading.Event()

    def stage(self, text: str) -> None: ...

    def event(self, event: DbtEvent) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.heard.set()


@contextmanager
def holder(target: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.support.hold_target", target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


def take_in_a_thread(target: str, context: Context | None = None) -> tuple[threading.Thread, Listener, threading.Event]:
    listener, taken = Listener(), threading.Event()

    def take() -> None:
        with reporting_to(listener), one_writer(target, holder="me"):
            taken.set()

    # Prefect's settings in force belong to the context, which a new thread does not have by itself.
    thread = threading.Thread(target=(context or copy_context()).run, args=(take,), daemon=True)
    thread.start()
    return thread, listener, taken


def leases() -> Path:
    """Return the folder of the server's leases."""
    return Path(os.environ["PREFECT_HOME"]) / "concurrency_leases"


def run_out(lease_id: UUID) -> None:
    """Put the end of a lease into the past, so that a minute need not go by."""
    past = "2026-01-31T00:00:00+00:00"
    path = leases() / f"{lease_id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "expiration": past}))
    index = leases() / "expirations.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), str(lease_id): past}))


def lease_of(target: str) -> UUID:
    """Return the one lease of a target."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        limit = str(client.read_global_concurrency_limit_by_name(limit_name(target)).id)
    files = [path for path in leases().glob("*.json") if path.name != "expirations.json"]
    (mine,) = (path for path in files if limit in json.loads(path.read_text())["resource_ids"])
    return UUID(mine.stem)
