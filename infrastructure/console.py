"""What the commands of setup and deployments say: errors in words, notes beside what a program reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from infrastructure.errors import ConfigError, TributaryError

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_CHANGES = 3


@contextmanager
def in_words() -> Iterator[None]:
    """Turn the project's errors into a sentence and an exit code; anything else is a bug and keeps its traceback."""
    try:
        yield
    except TributaryError as exc:
        click.echo(f"{click.style('Error:', fg='red')} {exc}", err=True)
        sys.exit(EXIT_CONFIG if isinstance(exc, ConfigError) else EXIT_FAILED)


def say_aside(text: str) -> None:
    """Tell a person what takes long, or what is out of the ordinary."""
    click.echo(click.style(text, dim=True), err=True)


def silent(_: str) -> None:
    """Tell nobody."""
