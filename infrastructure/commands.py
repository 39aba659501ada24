"""The commands that people are told, as they type them: with the program and the workspace of the present one."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import click

NAME = "tributary"
AS_MODULE = "python -m flows"
WORKSPACE_KEY = "infrastructure.commands.workspace"
_ROOT = Path(__file__).parents[1]
# The program where it is told to be typed, and not where its name is in a path or a sentence.
_TOLD = re.compile(rf"(?<![\w./@-])(?<!-- ){NAME}(?= [a-z])")


def program() -> str:
    """Return what to type before the name of a command: as the present one was typed, or as README says."""
    typed = Path(sys.argv[0])
    is_module = typed.suffix == ".py" and typed.resolve().is_relative_to(_ROOT) and "site-packages" not in typed.parts
    is_typed = is_module or typed.name == NAME
    # An image without uv has no such program.
    is_installed = Path(sys.prefix, "bin", NAME).exists()
    name = NAME if is_installed and not is_module else AS_MODULE
    return f"uv run {name}" if "UV_RUN_RECURSION_DEPTH" in os.environ or (is_installed and not is_typed) else name


def command(words: str) -> str:
    """Return a command to type, in the workspace that the present one was given."""
    return " ".join([program(), words, *given_workspace()])


def as_typed(text: str) -> str:
    """Return a text in which commands are written as they are to be typed here."""
    return _TOLD.sub(lambda _: program(), text)


def given_workspace() -> list[str]:
    """Return the words by which a command that is shown works in the workspace that the present one was given."""
    ctx = click.get_current_context(silent=True)
    folder = ctx.meta.get(WORKSPACE_KEY) if ctx else None
    return ["--workspace", near(folder)] if folder else []


def near(folder: Path | str) -> str:
    """Return a folder as a word of a command: as seen from the current one, where that is easier to read."""
    return shlex.quote(min(os.path.relpath(folder), str(folder), key=len))
