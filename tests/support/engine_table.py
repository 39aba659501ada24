"""The table of docs/dbt-versions.md: what every dbt was seen to do, written by the tests that saw it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from infrastructure.program import Program

FILE = Path(__file__).parents[2] / "docs" / "dbt-versions.md"
BEGIN, END = "<!-- written by tests/flows/engine/process/test_engines.py -->", "<!-- /written -->"

OUTCOMES = "a build; failed, warned and skipped nodes; wrong SQL, in dbt's words"
RESUME = "`--resume` after what failed was mended"
SELECTION = "which nodes a selection means"
MISTAKES = "a selection of nothing and a mistyped flag are mistakes"
MISSING = "a source's table that is missing is named"
TIME_LIMIT = "a time limit, and `--resume` after it"
STOPPED = "a run that is cancelled, and `--resume` after it"
KILLED = "a run that is killed, and `--resume` after it"
RETRIES = "what failed for a passing reason is tried again"
HOOKS = "an on-run hook that failed says why"
HOOK_RETRIES = "and is tried again where the reason passes"
CHANGED = "`--changed` builds only what changed"
SECRETS = "secrets blanked out of what a driver says, and of every file"
COMMENT = "the flow run's id in every statement's comment"
FRESHNESS = "freshness of sources"
DOCS = "documentation site (`--docs`)"
ROWS = (
    OUTCOMES,
    RESUME,
    SELECTION,
    MISTAKES,
    MISSING,
    TIME_LIMIT,
    STOPPED,
    KILLED,
    RETRIES,
    HOOKS,
    HOOK_RETRIES,
    CHANGED,
    SECRETS,
    COMMENT,
    FRESHNESS,
    DOCS,
)

# What this process has seen: by column, by row.
SEEN: defaultdict[str, dict[str, str]] = defaultdict(dict)


def column_of(program: Program) -> str:
    """Return the head of a dbt's column: its version, and whether it is in Tributary's own environment."""
    return program.version if program.path else f"{program.version}, own"


def read_table(text: str) -> dict[str, dict[str, str]]:
    """Return the cells of a document's table, by column, by row."""
    lines = text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    heads, _, *rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines] or [[], []]
    return {head: {row[0]: row[place] for row in rows} for place, head in enumerate(heads[1:], start=1) if heads}


def with_table(text: str, columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return a document with this table in the place of the one that it has, the oldest dbt first."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{FILE.name} has no {BEGIN} … {END}"
    heads = sorted(columns, key=_age)
    lines = [_line("what", heads), _line("---", ["---"] * len(heads))]
    lines += [_line(row, [columns[head].get(row, "not run") for head in heads]) for row in ROWS]
    return f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}"


def require_written(program: Program) -> None:
    """Hold a dbt's column against what this process saw of it, once that is all; write it where it differs."""
    column = column_of(program)
    if SEEN[column].keys() != set(ROWS):
        return
    text = FILE.read_text(encoding="utf-8")
    written = with_table(text, read_table(text) | {column: SEEN[column]})
    if text != written:
        FILE.write_text(written, encoding="utf-8")
        pytest.fail(f"{FILE} was out of date: it is written anew, look at it and keep it")


def _age(head: str) -> tuple[list[int], str]:
    version = head.partition(",")[0]
    return [int(number) for number in version.partition("-")[0].split(".")], head


def _line(head: str, cells: list[str]) -> str:
    return f"| {head} | {' | '.join(cells)} |"
