"""The report in a few lines: Markdown in the Prefect UI after every build."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from flows.history.rows import utc
from flows.history.store import history_store
from flows.report.artifacts import attaching, key_of
from flows.report.html.contents import Contents, read_contents
from flows.report.html.words import clock, headline, moment, share
from infrastructure.commands import command
from infrastructure.plain_text import count_of, markdown_code, markdown_text

DAYS = 30
_SHOWN = 10
_MARKS = {"succeeded": "✓", "warned": "!", "failed": "✗", "cancelled": "–"}


def publish_overview(project: str, target: str) -> None:
    """Create the overview of a target as an artifact; errors are noted, not raised."""
    from prefect.artifacts import create_markdown_artifact

    with attaching():
        with history_store(os.environ).reading(project, target) as history:
            contents = read_contents(history, project, target, utc(datetime.now(UTC)), DAYS)
        create_markdown_artifact(
            overview_markdown(contents),
            key=key_of("dbt-overview", target),
            description=f"{project} on {target}: {headline(contents)}",
        )


def overview_markdown(contents: Contents) -> str:
    """Return the overview of a target as Markdown."""
    tests, success = contents.tests, contents.success
    fresh = sum(source["outcome"] == "succeeded" for source in contents.sources)
    said = markdown_text(headline(contents))
    lines = [
        f"## {markdown_text(contents.project)} on {markdown_code(contents.target)}: {said}",
        "",
        f"The last {count_of(len(contents.runs), 'run')}, newest last: "
        + "".join(_MARKS.get(run["run_outcome"], "?") for run in contents.runs),
        "",
        f"- {share(success['good'], success['total'])} of {success['total']} runs in {contents.days} days succeeded",
        f"- {share(tests['passed'], tests['total'])} of {tests['total']} tests pass",
    ]
    lines += [f"- {fresh} of {len(contents.sources)} sources are fresh"] if contents.sources else []
    failing = [
        # Who reads it tomorrow is told the same.
        (node["name"], node["outcome"], f"{moment(node['since'])} UTC", node["times"], node["owner"] or "")
        for node in contents.failing
    ]
    lines += _table("Failing or warning, and since when", ("node", "outcome", "since", "runs", "owner"), failing)
    late = [
        (source["name"], clock(source["age_seconds"]) or "not checked", clock(source["promised_seconds"]))
        for source in contents.sources
        if source["outcome"] != "succeeded"
    ]
    lines += _table("Late sources", ("source", "age", "promised"), late)
    path = sorted(contents.critical_path, key=lambda node: -node["seconds"])
    rows = [(node["name"], clock(node["seconds"]), clock(node["queue_seconds"])) for node in path]
    took = clock(sum(node["seconds"] for node in path))
    lines += _table(f"Longest on the critical path ({took})", ("node", "took", "waited for a thread"), rows)
    slower = [(model["name"], model["regression"]) for model in contents.models if model["regression"]]
    lines += _table("Got slower", ("model", "median"), slower)
    return "\n".join([*lines, "", f"The whole report: {markdown_code(command(f'report --target {contents.target}'))}"])


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    if not rows:
        return []
    lines = ["", f"### {title}", "", f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    lines += [f"| {' | '.join(markdown_text(str(cell)) for cell in row)} |" for row in rows[:_SHOWN]]
    return lines + ([f"\nand {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else [])
