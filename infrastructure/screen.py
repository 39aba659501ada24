"""Print to a terminal: text from outside is shown as plain text, and colours come from this project alone."""

from __future__ import annotations

import logging
import re
import secrets
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from infrastructure.plain_text import log_line, plain

if TYPE_CHECKING:
    from rich.console import Console

# Marks a colour until it is shown. It is random in every process, so that text from outside can't contain it.
_OURS = f"<{secrets.token_hex(8)}:"
_COLOUR = re.compile(re.escape(_OURS) + r"([\d;]*)>")
_SGR = re.compile(r"\x1b\[([\d;]*)m")


def styled(text: str, **style: Any) -> str:  # noqa: ANN401  (click.style's)
    """Return a text that `echo` shows in a style of `click.style`."""
    begin, end = click.style("\0", **style).split("\0")
    return _SGR.sub(rf"{_OURS}\1>", begin) + plain(text) + _SGR.sub(rf"{_OURS}\1>", end)


def echo(text: str = "", err: bool = False, nl: bool = True) -> None:
    """Print a text, in which only `styled` makes colours."""
    # Every other piece is the number of a colour.
    pieces = _COLOUR.split(text)
    shown = "".join(f"\x1b[{piece}m" if number % 2 else plain(piece) for number, piece in enumerate(pieces))
    click.echo(shown, err=err, nl=nl)


def screen(stderr: bool = False, width: int | None = None) -> Console:
    """Return a console for tables and progress that ignores markup and control sequences in text."""
    return _console_class()(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


class LogFormatter(logging.Formatter):
    """Format records so that text from outside stays within its own record."""

    def format(self, record: logging.LogRecord) -> str:
        return log_line(super().format(record))


@cache
def _console_class() -> type[Console]:
    from collections.abc import Iterable

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Screen(Console):
        """Clean every piece of text when it is rendered."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(plain(segment.text), segment.style)

    return Screen
