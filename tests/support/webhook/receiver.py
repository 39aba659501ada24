"""Deployments to start, and receivers that run as they would in production."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.prefect_api import post
from tests.support.processes import free_port, wait_until
from tests.support.webhook.deliveries import SECRET, write_project


@dataclass
class Deployment:
    """A deployment on a Prefect server that nobody serves, so that its runs stay where they are."""

    api: str
    name: str
    id: str

    def runs(self) -> list[dict[str, Any]]:
        """Return its flow runs."""
        body = {"flow_runs": {"deployment_id": {"any_": [self.id]}}, "limit": 200}
        return post(self.api, "/flow_runs/filter", body)

    def jobs(self) -> list[list[str]]:
        """Return the numbers of the jobs that each run stands for."""
        return sorted(sorted(tag.split(":")[-1] for tag in run["tags"]) for run in self.runs())


@dataclass
class Receiver:
    """A receiver in a process of its own, that can be killed and started again on the same spool."""

    folder: Path
    settings: dict[str, str]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return where deliveries go."""
        return f"http://127.0.0.1:{self.port}/webhooks/airbyte/{SECRET}"

    def start(self, **settings: str) -> None:
        """Start it, and wait until it takes deliveries."""
        environment = {**os.environ, **self.settings, **settings}
        command = [sys.executable, "-m", "deployments.webhook", "serve", "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        wait_until(self._is_ready, "the receiver is ready")

    def deliver(self, document: dict[str, Any]) -> int:
        """Deliver, and return the status of the answer."""
        return httpx.post(self.url, json=document, trust_env=False, timeout=30).status_code

    def kill(self) -> None:
        """Kill it as the machine would."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> None:
        """Stop it as a person would, and see that it obeys."""
        assert self.process
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def log(self) -> str:
        """Return what it has logged."""
        return (self.folder / "log").read_text()

    def _is_ready(self) -> bool:
        assert self.process
        if self.process.poll() is not None:
            pytest.fail(f"the receiver did not start:\n{self.log()[-2000:]}")
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}/ready", trust_env=False).is_success
        return False


@contextmanager
def receiver_in(folder: Path, **settings: str) -> Iterator[Receiver]:
    """Yield a receiver that has not been started, and stop it at the end."""
    receiver = Receiver(
        folder,
        {
            "TRIBUTARY_WEBHOOK_SECRET": SECRET,
            "TRIBUTARY_WEBHOOK_SPOOL": str(folder / "spool.db"),
            "TRIBUTARY_WEBHOOK_PROJECT_DIR": str(write_project(folder / "project")),
            "TRIBUTARY_WEBHOOK_PREFECT_RETRY_SECONDS": "1",
            **settings,
        },
    )
    with ExitStack() as stack:
        stack.callback(receiver.stop)
        yield receiver
