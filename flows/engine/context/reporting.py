"""Report the progress of a run: to a person at a terminal, to a log, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from flows.engine.context.events import DbtEvent
from infrastructure.plain_text import log_line
from infrastructure.screen import echo


class Reporter(Protocol):
    """Take what happens while it happens."""

    def stage(self, text: str) -> None:
        """Say what begins now, such as "dbt build"."""
        ...

    def event(self, event: DbtEvent) -> None:
        """Show a line of dbt."""
        ...

    def note(self, text: str) -> None:
        """Say something a person should know, such as whom a run is waiting for."""
        ...


class PlainReporter:
    """Print dbt's lines as they come: for workers and containers, whose output is a log."""

    def stage(self, text: str) -> None:
        echo(log_line(text))

    def event(self, event: DbtEvent) -> None:
        if event.text.strip() and event.level != "debug":
            echo(log_line(event.text))

    def note(self, text: str) -> None:
        echo(log_line(text))


_reporter: ContextVar[Reporter | None] = ContextVar("tributary_reporter", default=None)


def current_reporter() -> Reporter:
    """Return the reporter in force; plain lines unless the caller chose another."""
    return _reporter.get() or PlainReporter()


@contextmanager
def reporting_to(reporter: Reporter) -> Iterator[None]:
    """Use a reporter for all runs inside the block."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)
