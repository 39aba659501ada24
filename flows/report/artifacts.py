"""A result as artifacts in the Prefect UI, a table and a summary, and the sentences that other reports share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from flows.engine.artifacts.results import OUTCOMES, DbtResult, NodeResult, Stopped
from flows.engine.context.events import HOOK, REUSED, NodeEvent
from flows.engine.context.state import TEXT_LOG
from flows.engine.ledger.explanation import Explanation, explain
from flows.engine.ledger.failures import log_of
from flows.report.adapter_costs import cost_columns, cost_sentence, figures_of
from infrastructure.plain_text import (
    count_of,
    cut,
    markdown_block,
    markdown_cell,
    markdown_code,
    markdown_text,
    one_line,
    sentence,
)

# The UI renders a table in one piece; failures come first, so that successes are cut off.
MAX_ROWS = 2000
SLOWEST = 5
_ORDER = {"failed": 0, "skipped": 1, "warned": 2, "succeeded": 3}
_TESTS = ("test", "unit_test")


def counts_sentence(result: DbtResult) -> str:
    """Return how many nodes ended how, such as "41 succeeded, 1 failed"."""
    counts = result.counts()
    parts = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome]]
    if reused := sum(node.is_reused for node in result.nodes):
        parts[0] += f" ({reused} of them used again as they were)"
    return ", ".join(parts) or "nothing to do"


def slowest(result: DbtResult, limit: int = SLOWEST) -> list[NodeResult]:
    """Return the nodes that took longest, longest first; hooks are none that could be made quicker as a node."""
    nodes = [node for node in result.nodes if node.resource_type != HOOK]
    return sorted(nodes, key=lambda node: -node.seconds)[:limit]


def rows_affected(node: NodeResult) -> int | None:
    """Return how many rows the warehouse wrote; None where it does not report that."""
    return figures_of(node).rows


def rows_found(node: NodeResult | NodeEvent) -> str:
    """Return how many rows a test found, in words."""
    return "1 row" if node.failures == 1 else f"{node.failures or 0:,} rows"


def by_reason(skipped: Iterable[NodeResult]) -> dict[str, list[NodeResult]]:
    """Return nodes that did not run by the reason, in words, in which the lead that all have in common is left out."""
    found: dict[str, list[NodeResult]] = {}
    for node in skipped:
        because = sentence(node.message, 300).removeprefix("Not run: ") or "something upstream of it failed."
        found.setdefault(because[0].upper() + because[1:], []).append(node)
    return found


def table_rows(result: DbtResult) -> list[dict[str, Any]]:
    """Return a row per node for the results table, failures first, then the slowest."""
    nodes = sorted(result.nodes, key=lambda node: (_ORDER[node.outcome], -node.seconds))[:MAX_ROWS]
    # DuckDB and PostgreSQL report none of them.
    has_costs = any(any(cost_columns(node).values()) for node in nodes)
    return [
        {
            # Last, because the names of tests are long.
            "outcome": REUSED if node.is_reused else node.outcome,
            "seconds": round(node.seconds, 2),
            "attempts": node.attempts,
            "type": node.resource_type,
            "node": node.name,
            "rows": rows_affected(node) if rows_affected(node) is not None else (node.failures or ""),
            "message": sentence(node.message, 2000),
        }
        | (cost_columns(node) if has_costs else {})
        for node in nodes
    ]


def summary_markdown(result: DbtResult, explanation: Explanation | None = None) -> str:
    """Return the summary of a result as Markdown."""
    how = f"{result.command} on {markdown_code(result.target)}: {counts_sentence(result)}"
    size = f"{count_of(len(result.nodes), 'node')} in {result.seconds:.1f} s. {cost_sentence(result.nodes)}".rstrip()
    lines = [f"## {how}", "", size]
    if result.of("failed"):
        # Who opens it wants to know why; how many others went well comes later.
        explained = explanation or explain(result, log_of(result.run_path))
        lines = [f"## {markdown_text(_cause(explained))}", "", f"{how}. {size}", *explained.markdown()]
    lines += _section("Warnings", result.of("warned"))
    if result.stopped:
        lines += _stopped(result.stopped)
    skipped = result.of("skipped")
    if skipped:
        lines += ["", f"### Not run ({len(skipped)})", ""]
        groups = list(by_reason(skipped).items())
        for because, nodes in groups[:20]:
            names = ", ".join(markdown_code(node.name) for node in nodes[:20])
            more = f" and {len(nodes) - 20} more" if len(nodes) > 20 else ""
            lines.append(f"- {names}{more}: {markdown_text(because)}")
        if len(groups) > 20:
            lines.append(f"- and {sum(len(nodes) for _, nodes in groups[20:])} more, in the results table")
    retried = [node for node in result.nodes if node.earlier_messages]
    if retried:
        lines += ["", f"### Retried ({len(retried)})", ""]
        lines += [
            f"- {markdown_code(node.name)}: {node.outcome} at attempt {node.attempts}, "
            f"after: {markdown_code(sentence(node.earlier_messages[-1]))}"
            for node in retried[:20]
        ]
    if result.nodes:
        lines += ["", "### Slowest", "", "| node | seconds |", "| --- | ---: |"]
        lines += [f"| {markdown_cell(node.name)} | {node.seconds:.2f} |" for node in slowest(result)]
    lines += [f"\n{markdown_text(note)}" for note in result.notes]
    return "\n".join([*lines, "", f"Log: {markdown_code(str(log_of(result.run_path)))}"])


def _cause(explained: Explanation) -> str:
    """Return what failed first, and how much else did."""
    others = len(explained.failed) - 1
    return explained.failed[0].title + (f", and {others} more" if others else "")


def _stopped(stopped: Stopped) -> list[str]:
    return [
        "",
        f"### Stopped: {markdown_text(str(stopped))}",
        "",
        "Run again with `resume` to do the rest.",
    ]


def _section(title: str, nodes: Sequence[NodeResult]) -> list[str]:
    if not nodes:
        return []
    lines = ["", f"### {title} ({len(nodes)})", ""]
    for number, node in enumerate(nodes[:20]):
        said = node.message.strip() or rows_found(node)
        if "\n" in said:
            # The first ones in full: later ones often failed for the same reason.
            most, width = (20, 500) if number < 5 else (6, 300)
            lines += [f"- {markdown_code(node.name)}", "", markdown_block(said, most, width, TEXT_LOG, "  "), ""]
        else:
            lines.append(f"- {markdown_code(node.name)}: {markdown_code(cut(said, 400, TEXT_LOG))}")
    if len(nodes) > 20:
        lines.append(f"- and {len(nodes) - 20} more, in the results table")
    return lines


def artifact_key(result: DbtResult, what: str) -> str:
    """Return an artifact key that is the same in every run, in the characters that Prefect allows."""
    return key_of(result.command, result.target, what)


def key_of(*words: str) -> str:
    """Join words to a key in the characters that Prefect allows."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


@contextmanager
def attaching() -> Iterator[None]:
    """Note, and do not raise, any error of a block that creates artifacts."""
    from flows.engine.context.reporting import current_reporter

    try:
        yield
    except Exception as exc:  # noqa: BLE001  (a run's outcome must not hang on its report)
        current_reporter().note(f"The report could not be put on the Prefect server: {one_line(str(exc))}")


def publish(result: DbtResult, explanation: Explanation | None = None) -> None:
    """Create the table and the summary of a result as artifacts; a server that does not answer is noted, not raised."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    with attaching():
        explained = (explanation or explain(result, log_of(result.run_path))) if result.of("failed") else None
        cause = f"{_cause(explained)}. " if explained else ""
        create_markdown_artifact(
            summary_markdown(result, explained),
            key=artifact_key(result, "summary"),
            description=f"{cause}{result.command} on {result.target}: {counts_sentence(result)}",
        )
        if result.nodes:
            create_table_artifact(
                table_rows(result),
                key=artifact_key(result, "nodes"),
                description=f"Every node of {result.command} on {result.target}, failures first",
            )


def as_document(results: Sequence[DbtResult]) -> dict[str, Any]:
    """Return results as a JSON document: the counts of all, and every node of every command."""
    return {
        "counts": {outcome: sum(result.counts()[outcome] for result in results) for outcome in OUTCOMES},
        "commands": [
            {
                "command": result.command,
                "target": result.target,
                "commit": result.commit,
                "seconds": round(result.seconds, 3),
                "started_at": result.started_at,
                "counts": result.counts(),
                "log": str(log_of(result.run_path)),
                "notes": result.notes,
                "stopped": asdict(result.stopped) if result.stopped else None,
                "nodes": [
                    {
                        "unique_id": node.unique_id,
                        "outcome": node.outcome,
                        "status": node.status,
                        "seconds": round(node.seconds, 3),
                        "attempts": node.attempts,
                        "earlier_messages": node.earlier_messages,
                        "failures": node.failures,
                        "relation": node.relation,
                        "message": node.message,
                        "adapter_response": dict(node.adapter_response),
                    }
                    for node in result.nodes
                ],
            }
            for result in results
        ],
    }
