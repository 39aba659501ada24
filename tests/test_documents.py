"""What the documents say can be given as it stands: options exist, extras exist, links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest

from tests.support.documents import DOCUMENTS, ROOT, Command, anchors, commands, links

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OURS = [
    command
    for document in DOCUMENTS
    for command in commands(document)
    if command.words[0] in ("uv", "python", "make", "prefect")
]


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


def is_written_by_the_reader(module: str) -> bool:
    """Return whether a document tells its reader to write this module."""
    return (
        any(f"`{module.replace('.', '/')}.py`" in document.read_text() for document in DOCUMENTS)
        and not (ROOT / f"{module.replace('.', '/')}.py").exists()
    )


@pytest.mark.parametrize("command", OURS, ids=str)
def test_a_command_is_one_that_the_program_takes(command: Command) -> None:
    words = command.words
    if words[:2] == ("uv", "sync"):
        for option, value in zip(words[2::2], words[3::2], strict=True):
            known = {"--extra": "optional-dependencies", "--group": "dependency-groups"}[option]
            assert value in (PROJECT["project"] if option == "--extra" else PROJECT).get(known, {})
        return
    if words[:2] == ("uv", "run"):
        words = after_uv_run(words)
    if not words:
        return  # `uv run --script`, in a sentence
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif words[:2] == ("python", "-m") and words[2].split(".")[0] in (
        "flows",
        "infrastructure",
        "deployments",
        "benchmarks",
    ):
        if not is_written_by_the_reader(words[2]):
            accept(words[2], list(words[3:]), command.is_whole)
    elif words[0] == "pytest":
        for path in (word for word in words[1:] if word.startswith("tests")):
            assert (ROOT / path.split("::")[0]).exists()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_a_link_leads_somewhere(document: Path) -> None:
    for link in links(document):
        path, _, heading = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name} points to {link}"
        assert not heading or heading in anchors(target), f"{document.name} points to {link}: no such heading"
