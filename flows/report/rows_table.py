"""Print rows of any query: a table where they fit, else a block of lines for each row."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from infrastructure.plain_text import cut_middle, one_line
from infrastructure.screen import echo, styled

# A column is cut to this before rows become blocks.
_NARROWEST = 16
_GAP = "  "


def width_of_stdout() -> int | None:
    """Return how many columns the terminal has; None for a file or a pipe, which has no width."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None = None) -> None:
    """Print rows.

    Args:
        width: columns of the terminal; all that is needed when None.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    for line in _table(columns, rows, cells, width) or _blocks(columns, cells):
        echo(line)


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], cells: list[list[str]], width: int | None
) -> list[str]:
    """Return the lines of a table; none where it does not fit."""
    wide = [max([len(name), *(len(row[at]) for row in cells)]) for at, name in enumerate(columns)]
    figures = [all(isinstance(row[at], (int, float)) or row[at] is None for row in rows) for at in range(len(columns))]
    # Text can be cut in the middle and still be recognised; a figure or a moment can't.
    cuttable = [
        at for at in range(len(columns)) if rows and all(isinstance(row[at], (str, type(None))) for row in rows)
    ]
    while width is not None and sum(wide) + len(_GAP) * (len(wide) - 1) > width:
        longest = max(cuttable, key=lambda at: wide[at], default=None)
        if longest is None or wide[longest] <= max(_NARROWEST, len(columns[longest])):
            return []
        wide[longest] -= 1
    lines = [
        styled(_GAP.join(_placed(name, wide[at], figures[at]) for at, name in enumerate(columns)).rstrip(), dim=True)
    ]
    for row in cells:
        placed = (_placed(cut_middle(text, wide[at]), wide[at], figures[at]) for at, text in enumerate(row))
        lines.append(_GAP.join(placed).rstrip())
    return lines


def _placed(text: str, width: int, is_figure: bool) -> str:
    return text.rjust(width) if is_figure else text.ljust(width)


def _blocks(columns: Sequence[str], cells: list[list[str]]) -> list[str]:
    wide = max((len(name) for name in columns), default=0)
    lines: list[str] = []
    for number, row in enumerate(cells):
        lines += [""] if number else []
        lines += [f"{styled(name.ljust(wide), dim=True)}{_GAP}{text}" for name, text in zip(columns, row, strict=True)]
    return lines


def _cell(value: Any) -> str:  # noqa: ANN401  (whatever a query gives)
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return one_line(", ".join(map(str, value)) if isinstance(value, list) else str(value), 10_000)
