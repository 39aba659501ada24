"""The target of a command: its profile, and the lock for writing to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.engine.context.reporting import reporting_to
from infrastructure.commands import program
from infrastructure.console import quiet_prefect, say
from infrastructure.errors import ConfigError
from infrastructure.screen import screen

if TYPE_CHECKING:
    from infrastructure.profiles import Profile


@contextmanager
def set_up(target: str) -> Iterator[None]:
    """Provide a Prefect server with the target's blocks while the block runs."""

    from flows.report.terminal import TerminalReporter
    from infrastructure.server.local_server import prefect_server
    from infrastructure.setup_profiles import ensure_target

    with TerminalReporter(screen(stderr=True)) as reporter, reporting_to(reporter):
        quiet_prefect()
        with prefect_server(say, targets=[target]):
            for sentence in ensure_target(target):
                say(sentence)
            yield


@contextmanager
def writing_to(target: str) -> Iterator[Profile]:
    """Lock a target for a loader, and yield its profile."""
    from flows.engine.target.file_lock import one_writer
    from infrastructure.profiles import load_profile

    with set_up(target), one_writer(target, holder=f"loading data, process {os.getpid()}"):
        yield load_profile(target)


def profile_for_parsing(target: str) -> Profile:
    """Return a profile for parsing: from targets.yml where that needs no secret, else from the block."""
    from infrastructure.profiles import declared_profile, load_profile
    from infrastructure.targets.target_file import load_targets

    if declared := declared_profile(target):
        return declared
    from infrastructure.server.local_server import prefect_server

    quiet_prefect()
    with prefect_server(say, targets=[target]):
        try:
            return load_profile(target)
        except ConfigError:
            # Neither saved nor declared: probably a typing mistake, so name the similar targets.
            load_targets().find(target)
            raise


def require_built(profile: Profile) -> Profile:
    """Return a profile whose warehouse can be asked.

    Raises:
        ConfigError: it is a DuckDB file that no run has made yet; a question makes none.
    """
    path = str(profile.output.get("path", ""))
    if profile.warehouse == "duckdb" and path and "://" not in path and ":" not in path and not os.path.exists(path):
        raise ConfigError(
            f"Nothing was built on target {profile.target} yet: there is no {os.path.relpath(path)}. "
            f"Build it: {program()} run --target {profile.target}"
        )
    return profile
