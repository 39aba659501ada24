"""Runs the services of a compose file as processes of this machine, in the order and on the conditions that it says."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.support.processes import wait_until

_VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    """Put variables in as compose does."""
    if isinstance(value, dict):
        return {name: interpolated(inner, environ) for name, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, environ) for inner in value]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> str:
        if environ.get(match[1]):
            return environ[match[1]]
        if match[2] == "?":
            pytest.fail(f"{match[1]} is required: {match[3]}")
        return match[3] or ""

    return _VARIABLE.sub(found, value)


@dataclass
class Compose:
    """A compose file whose names, ports and folders are replaced by this machine's.

    Attributes:
        replaced: text in commands, environments and health checks → what stands for it here.
        stand_ins: services that are there already, so that only their health is checked.
    """

    path: Path
    environ: dict[str, str]
    replaced: dict[str, str]
    folder: Path
    search_path: str
    extra: dict[str, dict[str, str]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ended: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services: dict[str, Any] = interpolated(yaml.safe_load(self.path.read_text()), self.environ)["services"]

    def order(self) -> list[str]:
        """Return the services, each after those that it depends on."""
        done: list[str] = []
        while len(done) < len(self.services):
            free = [
                name
                for name, service in self.services.items()
                if name not in done and set(service.get("depends_on", {})) <= set(done)
            ]
            assert free, "the services depend on each other in a circle"
            done += free
        return done

    def start(self, name: str, stand_in: list[str] | None = None) -> None:
        """Start a service once what it depends on is as it demands."""
        service = self.services[name]
        for other, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                wait_until(lambda other=other: self.is_healthy(other), f"{other} is healthy for {name}")
            else:
                assert wanted["condition"] == "service_completed_successfully"
                self.wait_for_end(other)
        command = stand_in or self.here(service["command"])
        log = (self.folder / f"{name}.log").open("wb")
        self.processes[name] = subprocess.Popen(
            command, env=self.environment(name), cwd=Path.cwd(), stdout=log, stderr=subprocess.STDOUT
        )

    def wait_for_end(self, name: str) -> None:
        """Wait until a one-shot service has done its work."""
        wait_until(lambda: self.processes[name].poll() is not None, f"{name} ends", 600)
        assert self.processes[name].returncode == 0, self.log(name)

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a service, and of this process no more than a container would have."""
        own = {key: self.here([str(value)])[0] for key, value in self.services[name].get("environment", {}).items()}
        kept = ("HOME", "LANG", "UV_", "SSL_", "PIP_", "TRIBUTARY_ALERT_ROUTES", "DBT_SEND")
        basic = {key: value for key, value in os.environ.items() if key.startswith(kept)}
        return {**basic, "PATH": self.search_path, **self.extra.get(name, {}), **own}

    def is_healthy(self, name: str) -> bool:
        """Run the health check of a service."""
        process = self.processes[name]
        assert process.poll() is None, f"{name} has ended:\n{self.log(name)}"
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        done = subprocess.run(self.here(command), env=self.environment(name), capture_output=True, check=False)
        if done.returncode:
            # As the file says, at most: each look is a process, which takes its time from what is looked at.
            time.sleep(0.5)
        return done.returncode == 0

    def here(self, words: str | list[str]) -> list[str]:
        """Return a command with this machine's names, ports and folders in it."""
        assert isinstance(words, list), "commands are lists, so that no shell takes them apart"
        found: list[str] = []
        for word in words:
            for old, new in self.replaced.items():
                word = re.sub(rf"(?<![\w-]){re.escape(old)}(?![\w-])", new, word)
            found.append(word)
        return found

    def log(self, name: str) -> str:
        """Return the end of what a service has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def stop(self) -> dict[str, int]:
        """Stop everything as `docker compose down` does, the last first; return the exit codes of what was running."""
        codes: dict[str, int] = {}
        for name, process in reversed(self.processes.items()):
            if process.poll() is None:
                children = psutil.Process(process.pid).children(recursive=True)
                process.terminate()
                try:
                    codes[name] = process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    codes[name] = process.wait()
                for child in psutil.wait_procs(children, timeout=30)[1]:
                    child.kill()
        return codes
