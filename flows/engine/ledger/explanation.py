"""What to know and to do when a dbt command failed: composed here once, for terminal, Prefect's UI, JSON and alerts.

Pure functions, but for `explain`, which looks into the files that dbt compiled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from flows.engine.artifacts.artifacts import SourceAge
from flows.engine.artifacts.manifest import CONNECTION_KEY, TEST_TYPES, Manifest
from flows.engine.artifacts.manifest_file import texts_in
from flows.engine.artifacts.results import DbtResult, FailingRows, NodeResult
from flows.engine.context.events import UNTOLD, name_in
from flows.engine.context.state import TEXT_LOG
from flows.engine.ledger.skips import causes_of
from infrastructure.errors import preview
from infrastructure.plain_text import (
    count_of,
    lines_of,
    markdown_block,
    markdown_code,
    markdown_text,
    one_line,
    said_lines,
)

# So many failures are told whole; of the others, so many names.
WHOLE, NAMED = 3, 20
# What a person reads of one error, in lines and in characters of each.
_MOST, _WIDTH = 20, 500
# What a database says of where it stopped: dbt 2 names the file and the line; others a line of the statement, with its
# text or without, in which dbt has put lines of its own, or the name that they did not know.
_PLACE = re.compile(r"\(in \S+?\.sql:(\d+)(?::\d+)?\)")
_QUOTED_LINE = re.compile(r"^\s*LINE \d+: (.+)$", re.MULTILINE)
_NAMES = re.compile(
    r"[\"'`]([^\"'`\n]{2,120})[\"'`]|\b(?:name|column|relation|table|function):?\s+([\w.$]{2,120})", re.I
)
# dbt's own words about the count of a test that must find nothing, which the title has in fewer.
_COUNT_ALONE = re.compile(r"Got \d+ results?, configured to (?:fail|warn) if (?:!= 0|there are any\.?)")


@dataclass(frozen=True)
class FailedNode:
    """One node that failed.

    Attributes:
        title: what happened, in one line.
        said: the database's own words, by lines, without those that dbt adds around them.
        code: the file in the project, from its folder.
        compiled: the compiled SQL; None where dbt did not get so far.
        line: the line of it that the database complains of; None where that is unknown.
        not_built: names of the models, seeds and snapshots that were not built because of it.
        untested_count: how many tests were not run because of it.
        rows: some of those that a test found; what must not be seen is masked.
        note: why there are no rows.
    """

    unique_id: str
    title: str
    said: tuple[str, ...] = ()
    code: str = ""
    compiled: Path | None = None
    line: int | None = None
    not_built: tuple[str, ...] = ()
    untested_count: int = 0
    rows: FailingRows | None = None
    note: str = ""

    @property
    def place(self) -> str:
        """Return the compiled SQL's file and line as editors open it; empty where there is none."""
        return f"{self.compiled}{f':{self.line}' if self.line else ''}" if self.compiled else ""

    @property
    def left(self) -> str:
        """Return what was not done because of it; empty where nothing was left."""
        tests = count_of(self.untested_count, "test") if self.untested_count else ""
        if not self.not_built:
            return f"Not run because of it: {tests}." if tests else ""
        rest = f", and {tests}" if tests else ""
        return f"Not built because of it: {len(self.not_built)} ({preview(self.not_built)}){rest}."

    def in_one_line(self, limit: int = 600) -> str:
        """Return what happened and why in one sentence, without a full stop."""
        said = one_line(" ".join(self.said), limit).rstrip(".")
        return f"{self.title}{f': {said}' if said else ''}"

    def markdown_about(self) -> list[str]:
        """Return what is below the error as Markdown: rows, where the SQL is, what was not done because of it."""
        lines = [markdown_block("\n".join(table_lines(self.rows))), ""] if self.rows else []
        about = [markdown_text(self.note), f"SQL: {markdown_code(self.place)}" if self.place else ""]
        return [*lines, *(f"- {line}" for line in [*about, markdown_text(self.left)] if line)]

    def lines(self) -> list[str]:
        """Return what is below the title."""
        found = [*self.said]
        if self.rows:
            found += table_lines(self.rows)
        found += [line for line in (self.note, f"SQL: {self.place}" if self.place else "", self.left) if line]
        return found


@dataclass(frozen=True)
class Explanation:
    """Why a dbt command failed, what is not done because of it, and what to do: causes first.

    Attributes:
        headline: the command, and how many of its nodes failed.
        failed: what is a cause before what follows from it, and what holds up more before what holds up less.
        link: the page of the run; None without a server that has one.
        log: the file with all that dbt said.
        commands: what to do next: purpose and command.
    """

    headline: str
    failed: tuple[FailedNode, ...]
    log: str = ""
    link: str | None = None
    commands: tuple[tuple[str, str], ...] = ()

    def with_rows(self, rows: Mapping[str, FailingRows], hidden: Mapping[str, str]) -> Explanation:
        """Return it with the rows that failing tests found, by unique id, or why they are not shown."""
        found = (replace(each, rows=rows.get(each.unique_id)) for each in self.failed)
        return replace(self, failed=tuple(replace(each, note=hidden.get(each.unique_id, "")) for each in found))

    def message(self) -> str:
        """Return it as one paragraph for a state of Prefect, the first cause in front; without rows."""
        if not self.failed:
            return f"{self.headline}. Log: {self.log}"
        first = self.failed[0]
        parts = [f"{first.in_one_line()}.", f"SQL: {first.place}." if first.place else "", first.left]
        return f"{' '.join(part for part in parts if part)} {self.headline}. Log: {self.log}"

    def markdown(self) -> list[str]:
        """Return the lines of it as Markdown, below the title of the first cause."""
        lines: list[str] = []
        for each in self.failed[:WHOLE]:
            lines += ["", f"#### {markdown_text(each.title)}", ""] if lines else [""]
            if each.said:
                lines += [markdown_block("\n".join(each.said), _MOST, _WIDTH, TEXT_LOG), ""]
            lines += each.markdown_about()
        if others := self.failed[WHOLE:]:
            lines += ["", *(f"- {markdown_text(each.in_one_line(200))}" for each in others[:NAMED])]
            if more := len(others) - NAMED:
                lines += [f"- and {more} more, in the results table"] if more > 0 else []
        if self.commands:
            lines += ["", "### Next", ""]
            lines += [f"- {markdown_text(purpose)}: {markdown_code(command)}" for purpose, command in self.commands]
        return lines

    def as_document(self) -> dict[str, Any]:
        """Return it as JSON types."""
        failed = [
            asdict(replace(each, compiled=None))
            | {"compiled": str(each.compiled) if each.compiled else None, "not_built": list(each.not_built)}
            for each in self.failed
        ]
        commands = [{"purpose": purpose, "command": command} for purpose, command in self.commands]
        return {"headline": self.headline, "failed": failed, "link": self.link, "log": self.log, "next": commands}


def explain(result: DbtResult, log: Path) -> Explanation:
    """Return what there is to say about the failed nodes of a command, from what dbt has left of it."""
    manifest = result.artifacts.manifest_if_any
    is_freshness = result.command.endswith("freshness")
    ages = result.artifacts.sources(since=result.started_at) if is_freshness else {}
    compiled = {
        node.unique_id: found
        for node in result.of("failed")
        if (found := result.artifacts.compiled_file(manifest.nodes.get(node.unique_id), result.started_at))
    }
    return explanation_of(result, manifest, ages, compiled, log)


def explanation_of(
    result: DbtResult,
    manifest: Manifest,
    ages: Mapping[str, SourceAge],
    compiled: Mapping[str, tuple[Path, str]],
    log: Path,
) -> Explanation:
    """Return what there is to say about the failed nodes of a command.

    Args:
        ages: of sources, by unique id.
        compiled: file and content of the compiled SQL, by unique id.
    """
    bad, left = result.of("failed"), result.of("skipped")
    held_up = _held_up(result.nodes, manifest)
    found = [_failed(node, manifest, ages.get(node.unique_id), compiled.get(node.unique_id), held_up) for node in bad]
    after = _after_another(bad, manifest)
    ordered = sorted(found, key=lambda each: (each.unique_id in after, -len(each.not_built)))
    untold = sum(node.status in UNTOLD for node in left)
    follow = len(left) - untold
    because = "it" if len(bad) == 1 else "them"
    skipped = f" {follow} {'was' if follow == 1 else 'were'} skipped because of {because}." if follow else ""
    skipped += f" {untold} {'was' if untold == 1 else 'were'} not run." if untold else ""
    names = preview([name_in(each.unique_id, manifest.nodes) for each in ordered])
    headline = f"{result.command} failed on target {result.target} for {len(bad)} of {len(result.nodes)} nodes: {names}"
    return Explanation(f"{headline}.{skipped}".removesuffix("."), tuple(ordered), str(log))


def title_of(node: NodeResult) -> str:
    """Return what happened to a node, in one line."""
    if node.unique_id.startswith("source."):
        name = name_in(node.unique_id)
        if node.outcome == "warned":
            return f"source {name} is getting old"
        return f"source {name} is too old" if node.status in ("error", "fail") else f"source {name} could not be read"
    verb = "warns" if node.outcome == "warned" else "failed"
    if node.resource_type in TEST_TYPES and node.failures:
        return f"{node.name} {verb}: {count_of(node.failures, 'row')}"
    return f"{node.name} {verb}"


def age_sentence(age: SourceAge) -> str:
    """Return how old a source is and may be; empty where that is unknown."""
    if age.max_loaded_at is None:
        return ""
    said = "It has no rows at all"
    if age.loaded_at:
        span = _span(timedelta(seconds=round(float(age.age_seconds or 0))))
        said = f"Its newest row is of {age.loaded_at:%Y-%m-%d %H:%M} UTC, {span} ago"
    kinds = {"warn": age.warn_after, "error": age.error_after}
    limits = [f"{kind} after {limit}" for kind, limit in kinds.items() if limit]
    return f"{said}; its freshness: {', '.join(limits)}." if limits else f"{said}."


def loader_sentence(unique_id: str, manifest: Manifest) -> str:
    """Return what loads a source; empty where the project does not say."""
    node = manifest.nodes.get(unique_id)
    if node is None:
        return ""
    connections = ", ".join(texts_in(node.meta.get(CONNECTION_KEY)))
    parts = [node.loader, f"Airbyte connection {connections}" if connections else ""]
    return f"Loaded by {', '.join(part for part in parts if part)}." if any(parts) else ""


def table_lines(rows: FailingRows, width: int = 24) -> list[str]:
    """Return rows as a table in text, each value cut to a width."""
    table = [rows.columns, *rows.rows]
    cells = [[one_line(value, width) for value in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(value.ljust(wide) for value, wide in zip(row, widths, strict=True)).rstrip() for row in cells]


def line_of(said: str, sql: str) -> int | None:
    """Return the line of the compiled SQL that a database complains of; None where its words do not tell."""
    lines = sql.splitlines()
    if found := _QUOTED_LINE.search(said):
        wanted = found[1].strip().strip(".")
        numbers = [number for number, line in enumerate(lines, 1) if wanted and wanted in line]
        if len(numbers) == 1:
            return numbers[0]
    for name in (quoted or bare for quoted, bare in _NAMES.findall(said)):
        word = re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w)", re.IGNORECASE)
        if number := next((number for number, line in enumerate(lines, 1) if word.search(line)), None):
            return number
    # A statement begins with lines of dbt's own: the first one of the SQL is at best the one that is named.
    named = int(found[1]) if (found := _PLACE.search(said)) else None
    return named if named and named <= len(lines) else None


def _failed(
    node: NodeResult,
    manifest: Manifest,
    age: SourceAge | None,
    compiled: tuple[Path, str] | None,
    held_up: Mapping[str, Sequence[str]],
) -> FailedNode:
    left = [manifest.nodes.get(unique_id) for unique_id in held_up.get(node.unique_id, ())]
    named = manifest.nodes.get(node.unique_id)
    text = "" if _COUNT_ALONE.fullmatch(node.message.strip()) else node.message.strip()
    said = lines_of("\n".join(_dedented(said_lines(text))), _MOST, _WIDTH, TEXT_LOG) if text else []
    if node.resource_type == "source":
        said += [line for line in (age_sentence(age) if age else "", loader_sentence(node.unique_id, manifest)) if line]
    elif not said and not node.failures:
        said = ["dbt gave no message."]
    path, sql = compiled or (None, "")
    return FailedNode(
        node.unique_id,
        title_of(node),
        tuple(said),
        named.path if named else "",
        path,
        line_of(node.message, sql) if sql and node.resource_type not in TEST_TYPES else None,
        tuple(each.name for each in left if each and each.resource_type not in TEST_TYPES),
        sum(1 for each in left if each and each.resource_type in TEST_TYPES),
    )


def _held_up(nodes: Iterable[NodeResult], manifest: Manifest) -> dict[str, list[str]]:
    """Return what was skipped, by each failure right upstream of it."""
    found: dict[str, list[str]] = {}
    for skipped, causes in causes_of(nodes, manifest).items():
        for cause in causes:
            found.setdefault(cause, []).append(skipped)
    return found


def _after_another(failed: Sequence[NodeResult], manifest: Manifest) -> set[str]:
    """Return the failed nodes that are downstream of another failed one, which may be why."""
    keys = {node.unique_id for node in failed}
    if len(keys) < 2 or not any(node.lets_go_on for node in manifest.nodes.values()):
        # Nothing runs whose parent failed, but where a model is told to let it.
        return {key for key in keys if not keys.isdisjoint(manifest.tested(key))}
    return keys & manifest.downstream(keys)


def _dedented(lines: Sequence[str]) -> list[str]:
    filled = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    return [line[min(filled, default=0) :] if line.strip() else "" for line in lines]


def _span(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    if hours < 2:
        return f"{round(hours * 60)} minutes"
    return f"{round(hours)} hours" if hours < 48 else f"{hours / 24:.1f} days"
