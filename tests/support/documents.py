"""The documents of the repository: their commands, files to write, and links."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
_SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
_OURS = re.compile(r"(uv run|python -m|tributary) ")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=")


@dataclass(frozen=True)
class Command:
    """One command that a document tells people to give.

    Attributes:
        words: as a shell would split it, without variables that are set before it and what stands after a pipe.
        is_whole: stands in a block of commands; in a sentence it may be only mentioned, without its arguments.
    """

    document: str
    words: tuple[str, ...]
    is_whole: bool

    def __str__(self) -> str:
        return f"{self.document}: {shlex.join(self.words)}"


def commands(document: Path) -> list[Command]:
    """Return every command of a document's shell blocks, and every `uv run …` in its sentences."""
    text = document.read_text()
    name = document.relative_to(ROOT).as_posix()
    blocks = [line for block in shell_blocks(text) for line in logical_lines(block)]
    outside = _FENCE.sub("", text)
    spans = [span.replace("\n", " ") for span in _SPAN.findall(outside) if _OURS.match(span)]
    return [
        Command(name, words, is_whole)
        for lines, is_whole in ((blocks, True), (spans, False))
        for line in lines
        for words in _words(line)
    ]


def shell_blocks(text: str) -> list[str]:
    """Return the shell blocks of a document, without the indentation of the list that they stand in."""
    found = [(indent, body) for indent, language, body in _FENCE.findall(text) if language == "bash"]
    return [re.sub(f"^{indent}", "", body, flags=re.M) for indent, body in found]


def logical_lines(block: str) -> Iterator[str]:
    """Yield the commands of a block: a line that ends in a backslash, or in an open quote, goes on."""
    pending = ""
    for line in block.splitlines():
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        try:
            shlex.split(pending, comments=True)
        except ValueError:
            pending += "\n"
            continue
        if pending.strip():
            yield pending
        pending = ""


def links(document: Path) -> list[str]:
    """Return where a document points to within the repository, as path#heading."""
    return [
        link for link in _LINK.findall(document.read_text()) if "://" not in link and not link.startswith("mailto:")
    ]


def anchors(document: Path) -> set[str]:
    """Return the names of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", document.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _words(line: str) -> Iterator[tuple[str, ...]]:
    for part in re.split(r"\s(?:&&|\|\||\||;|>)\s", line):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:
            continue
        while words and _ASSIGNMENT.match(words[0]):
            words.pop(0)
        if words:
            yield tuple(words)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def after_uv_run(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return what uv is to run; the extras and groups that it is to install have to be there."""
    rest = list(words[2:])
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "--extra":
            assert rest.pop(0) in PROJECT["project"]["optional-dependencies"]
        elif option == "--group":
            assert rest.pop(0) in PROJECT["dependency-groups"]
        else:
            assert option in ("--isolated", "--no-sync", "--script"), f"uv run {option} is not known here"
    return tuple(rest)


def accept(module: str, words: list[str], is_whole: bool) -> None:
    """Have a command line of ours take arguments apart, without doing what they ask for."""
    package = ROOT / module.replace(".", "/")
    imported = import_module(f"{module}.__main__" if package.is_dir() else module)
    command = next((found for found in vars(imported).values() if isinstance(found, click.Command)), None)
    if command is None:
        assert not words, f"python -m {module} takes no arguments"
        return
    name = f"python -m {module}"
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command, info_name=name), words[0])
        assert found is not None, f"{name} has no command {words[0]}"
        command, name, words = found, f"{name} {words[0]}", words[1:]
    if not words and not is_whole:
        return
    try:
        command.make_context(name, words)
    except click.exceptions.Exit:
        pass  # --help
    except click.BadParameter as exc:
        # A file of the reader's, or a word in capitals that stands for a value of the reader's.
        if isinstance(exc, click.MissingParameter) or not re.search(r"does not exist|'(…|[A-Z][A-Z_]+)'", exc.message):
            raise
