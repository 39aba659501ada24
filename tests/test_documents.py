"""What the documents say can be given as it stands: options exist, extras exist, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, PROJECT, ROOT, Command, accept, after_uv_run, anchors, commands, links

OURS = [
    command
    for document in DOCUMENTS
    for command in commands(document)
    if command.words[0] in ("uv", "python", "make", "prefect", "tributary")
]


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
    if words[0] == "tributary":
        accept("flows", list(words[1:]), command.is_whole)
    elif words[0] == "make":
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


def test_the_index_has_every_page() -> None:
    linked = {link.partition("#")[0] for link in links(ROOT / "docs" / "README.md")}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - linked == {"README.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_a_module_that_a_document_names_is_there(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        return  # It names what is gone, too.
    # One that is to be written by its reader is shown beneath its name.
    written = {"flows/hourly.py"}
    folders = (path.parent for path in ROOT.glob("*/__init__.py"))
    files = [path.relative_to(ROOT).as_posix() for folder in folders for path in folder.rglob("*.py")]
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)`", document.read_text())) - written
    assert not {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in files)}


def test_sentences_use_no_word_that_a_reader_has_to_translate() -> None:
    """A node depends on another or is downstream of it; a sentence says who does a thing, or what happens."""
    riddles = re.compile(
        r"\b(?:stands? on|stood on|whoever|somebody|nobody|what bec[oa]mes? of|heard of|told of)\b", re.I
    )
    product = (path for room in ("deployments", "flows", "infrastructure") for path in (ROOT / room).rglob("*.*"))
    read = [*DOCUMENTS, *(path for path in product if path.suffix in (".py", ".yml", ".json", ".sql", ".j2"))]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in read
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if riddles.search(line)
    ]
    assert not found, "\n".join(found)
