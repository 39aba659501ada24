"""What reaches a person's screen."""

from __future__ import annotations

import io
import logging

import click
import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table

from infrastructure.screen import LogFormatter, echo, screen, styled
from tests.support.hostile_text import HOSTILE

OBEYED = {"\x1b", "\x9b", "\x07", "\r", "\u202e"}


def test_colours_are_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(click, "echo", lambda text, **_: shown.append(text))
    echo(f"{styled('failed', fg='red')} \x1b[32mgood\x1b[0m {styled(HOSTILE, bold=True)}")
    begin, _, rest = shown[0].partition(" ")
    assert begin == click.style("failed", fg="red")
    assert rest.startswith("good \x1b[1mred [click]")
    assert rest.count("\x1b") == 2


def test_without_a_terminal_there_are_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"{styled('failed', fg='red')} {HOSTILE}", err=True)
    text = capsys.readouterr().err
    assert text.startswith("failed red [click](javascript:alert(1))")
    assert not OBEYED & {*text}


def test_tables_titles_and_progress_take_nothing_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    used = screen(width=400)
    used.print(HOSTILE)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    used.print(table)
    text = capsys.readouterr().out
    assert text.count("[/red] [bold]x") == 4
    assert not OBEYED & {*text}
    assert ":smile:" in _printed(":smile:", capsys)


def _printed(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    screen().print(text)
    return capsys.readouterr().out


def test_a_bar_on_a_terminal_shows_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    used = screen(width=300)
    used.file = io.StringIO()
    with Progress(TextColumn("{task.description}", markup=False), console=used, auto_refresh=False) as progress:
        progress.add_task("[/red] of a test")
        progress.refresh()
    assert "[/red] of a test" in used.file.getvalue()


def test_what_others_said_stays_within_its_lines_of_a_log() -> None:
    said = "no\n2026-01-01 INFO all is well\x1b[2J"
    record = logging.LogRecord("x", logging.INFO, "", 0, "it said: %s", (said,), None)
    assert LogFormatter("%(message)s").format(record) == "it said: no\n    2026-01-01 INFO all is well"
