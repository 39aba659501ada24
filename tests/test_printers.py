"""Whatever shows text goes through the one place that makes text of others safe; here is what would pass it by."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from flows.engine.artifacts.results import Stopped
from flows.report.artifacts import summary_markdown
from flows.runbook.audit.checks import Section
from flows.runbook.audit.flow import AuditReport, as_html, as_markdown
from flows.runbook.triage.changes import Changes
from flows.runbook.triage.flow import Triage, Triaged
from flows.runbook.triage.flow import as_markdown as triage_markdown
from tests.support.hostile_text import HOSTILE
from tests.support.results import node, result

ROOT = Path(__file__).parents[1]
# What prints by itself: a call → what to call in its place.
BYPASSES = {
    "print": "infrastructure.screen.echo",
    "click.echo": "infrastructure.screen.echo",
    "click.secho": "infrastructure.screen.echo",
    "click.style": "infrastructure.screen.styled",
    "sys.stdout.write": "infrastructure.screen.echo",
    "sys.stderr.write": "infrastructure.screen.echo",
    "Console": "infrastructure.screen.screen",
    "Text.from_markup": "rich.text.Text",
    "Text.from_ansi": "rich.text.Text",
    "escape": "infrastructure.plain_text.html_text",
    "html.escape": "infrastructure.plain_text.html_text",
    "logging.Formatter": "infrastructure.screen.LogFormatter",
    "Markup": "autoescape of the template",
}
ALLOWED = {
    ("infrastructure/screen.py", "click.echo"),
    ("infrastructure/screen.py", "click.style"),
    ("infrastructure/plain_text.py", "escape"),
    # Words of its own.
    ("infrastructure/blocks/block_types.py", "print"),
    # Charts that are drawn here, whose texts the library escapes.
    ("flows/report/html/page.py", "Markup"),
}


MARKUP = ("link_open", "image", "html_inline", "html_block", "em_open", "strong_open", "s_open", "hr")


def modules() -> Iterator[Path]:
    for folder in ("flows", "infrastructure", "deployments"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def bypasses(source: str) -> list[str]:
    """Return the calls that show text by themselves."""
    found: list[str] = []
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call):
            name = ast.unparse(call.func)
            is_markup = name == "TextColumn" and "markup=False" not in ast.unparse(call)
            if name in BYPASSES or is_markup:
                found.append(name)
    return found


def makes_markdown(source: str) -> bool:
    return "create_markdown_artifact" in source or "ArtifactCreate(" in source


def test_nothing_shows_text_but_through_the_one_place_that_makes_it_safe() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}; use {BYPASSES.get(name, 'markup=False')}"
        for path in modules()
        for name in bypasses(path.read_text(encoding="utf-8"))
        if (str(path.relative_to(ROOT)), name) not in ALLOWED
    ]
    assert not wrong


def test_every_module_that_writes_markdown_makes_its_texts_safe() -> None:
    writers = [path for path in modules() if makes_markdown(path.read_text(encoding="utf-8"))]
    assert writers
    assert not [
        path
        for path in writers
        if not re.search(r"\bmarkdown_(code|cell|block|text)\(", path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(
    "source",
    [
        "print(error)",
        "click.echo(error)",
        "Console().print(error)",
        "TextColumn('{task.description}')",
        "html.escape(error)",
        "sys.stderr.write(error)",
    ],
)
def test_a_printer_of_its_own_is_found(source: str) -> None:
    assert bypasses(source)


def of_a_run() -> str:
    nodes = [
        node(HOSTILE, status, message=HOSTILE, earlier_messages=(HOSTILE,)) for status in ("error", "warn", "skipped")
    ]
    found = result(*nodes, node("good"), notes=(HOSTILE,), target=HOSTILE)
    return summary_markdown(replace(found, stopped=Stopped(1, (HOSTILE,), 1, (HOSTILE,)), run_path=Path(HOSTILE)))


def of_a_triage() -> str:
    changes = Changes("2026-01-31T12:00:00", (HOSTILE,))
    each = Triaged("test.x", HOSTILE, True, HOSTILE, 1, (), "", changes, (HOSTILE,), (HOSTILE,))
    return triage_markdown(Triage(HOSTILE, (each,), (HOSTILE,), ()))


def audit() -> AuditReport:
    section = Section(HOSTILE, "error", HOSTILE, ({HOSTILE: HOSTILE, "other": 1},), HOSTILE)
    return AuditReport(HOSTILE, HOSTILE, datetime(2026, 1, 31, tzinfo=UTC), (section,))


def of_an_audit() -> str:
    return as_markdown(audit())


@pytest.mark.parametrize("make", [of_a_run, of_a_triage, of_an_audit])
def test_no_text_of_others_is_markup_in_markdown(make: Callable[[], str]) -> None:
    text = make()
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").parse(text)
    each = [inner for token in tokens for inner in (token, *(token.children or ()))]
    assert [token.type for token in each if token.type in MARKUP] == []
    titles = [tokens[number + 1].content for number, token in enumerate(tokens) if token.type == "heading_open"]
    assert "head" not in titles, "a line of theirs never begins something of its own"
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & {*text}


def test_no_text_of_others_is_markup_in_html() -> None:
    page = as_html(audit())
    assert "<img" not in page and "<script>" not in page and "<!channel>" not in page
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & {*page}
