"""The target that a command works on: its profile, and the right to write to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.engine.context.reporting import reporting_to
from infrastructure.console import quiet_prefect, say
from infrastructure.errors import ConfigError
from infrastructure.screen import screen

if TYPE_CHECKING:
    from infrastructure.profiles import Profile


@contextmanager
def set_up(target: str) -> Iterator[None]:
    """Have a server with the target's blocks for the time of the block."""

    from flows.report.terminal import TerminalReporter
    from infrastructure.server.local_server import prefect_server
    from infrastructure.setup_profiles import ensure_target

    with TerminalReporter(screen(stderr=True)) as reporter, reporting_to(reporter):
        quiet_prefect()
        with prefect_server(say):
            for sentence in ensure_target(target):
                say(sentence)
            yield


@contextmanager
def writing_to(target: str) -> Iterator[Profile]:
    """Hold a target for a loader."""
    from flows.engine.target.file_lock import one_writer
    from infrastructure.profiles import load_profile

    with set_up(target), one_writer(target, holder=f"loading data, process {os.getpid()}"):
        yield load_profile(target)


def profile_for_parsing(target: str) -> Profile:
    """Return a profile that is enough to parse with: from targets.yml where that needs no secret, else the block."""
    from infrastructure.profiles import declared_profile, load_profile
    from infrastructure.targets.target_file import load_targets

    if declared := declared_profile(target):
        return declared
    from infrastructure.server.local_server import prefect_server

    quiet_prefect()
    with prefect_server(say):
        try:
            return load_profile(target)
        except ConfigError:
            # Neither saved nor declared: the likely cause is a slip of the pen, and that is what to say.
            load_targets().find(target)
            raise
