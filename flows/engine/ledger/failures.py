"""Why dbt failed, and whether trying again can help."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from flows.engine.artifacts.results import PARAGRAPH, DbtResult, NodeResult, is_count
from flows.engine.context.command import DbtCommand
from flows.engine.context.state import TEXT_LOG
from flows.engine.ledger.explanation import explain
from flows.engine.ledger.transient import is_transient
from infrastructure.errors import ConfigError, DbtRunFailed, TributaryError, preview
from infrastructure.plain_text import lines_of, sentence

# What dbt says when a person has to change something before any run can work.
_CONFIGURATION = re.compile(
    r"could not find profile named|does not have a target named|profiles?\.yml|dbt_project\.yml"
    r"|dbt deps|no such option|invalid value for|could not find adapter type|env var required but not provided"
    r"|credentials in profile|parsing error: invalid selector|could not find selector",
    re.IGNORECASE,
)

# What stands above dbt's sentence.
_HEAD = re.compile(r"(?:\w+ )+Error")


def is_passing(node: NodeResult, warehouse: str) -> bool:
    """Say whether a node failed for a reason that a later try can get past; a failing test never does."""
    if node.outcome != "failed" or node.status == "fail":
        return False
    count, _, said = node.message.partition(PARAGRAPH)
    if said and is_count(count):
        # A later try gets past a failure of batches where it gets past each of them.
        return all(is_transient(each, warehouse) for each in said.split(PARAGRAPH))
    return is_transient(node.message, warehouse)


def retryable(nodes: Sequence[NodeResult], warehouse: str) -> bool:
    """Say whether every failed node failed for a transient reason, so that the same run may succeed a little later."""
    failed = [node for node in nodes if node.outcome == "failed"]
    return bool(failed) and all(is_passing(node, warehouse) for node in failed)


def failure_of(result: DbtResult, warehouse: str) -> DbtRunFailed:
    """Return the error that says which nodes of a command failed, and why."""
    explanation = explain(result, log_of(result.run_path))
    error = DbtRunFailed(
        explanation.message(),
        failed=[each.unique_id for each in explanation.failed],
        skipped=[node.unique_id for node in result.of("skipped")],
        is_transient=retryable(result.nodes, warehouse),
    )
    error.explanation = explanation
    return error


def left_undone(result: DbtResult) -> DbtRunFailed | None:
    """Return the error of a command in which nothing failed and nodes are left undone; None where none is."""
    left = result.of("skipped")
    if not left or result.of("failed"):
        return None
    because = sentence(left[0].message or "dbt skipped it and gave no reason").rstrip(".")
    return DbtRunFailed(
        f"{result.command} on target {result.target} left {len(left)} of {len(result.nodes)} nodes undone, though "
        f"nothing failed: {preview([node.name for node in left])}. {left[0].name}: {because}. "
        f"Log: {log_of(result.run_path)}",
        skipped=[node.unique_id for node in left],
    )


def nothing_matched(command: DbtCommand, target: str, names: Iterable[str]) -> ConfigError:
    """Return the error for a selection that matches no node.

    Args:
        names: of the project's nodes, one of which may have been meant.
    """
    asked = " ".join(word for part in (command.select, command.selector) if part for word in part.split())
    left_out = f" without {command.exclude}" if command.exclude else ""
    known = sorted(set(names))
    near = [match for word in asked.split() for match in get_close_matches(word.strip("+@"), known, n=1)]
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return ConfigError(
        f"{command.name} on target {target} was asked for {asked or 'everything'}{left_out}, which matches no node: "
        f"nothing was built.{meant} Where that is no mistake, give --allow-nothing."
    )


def crash_of(command: str, target: str, code: int, said: str, run_path: Path, warehouse: str) -> TributaryError:
    """Return the error for a dbt that ended before it ran, or while it ran, without a result of its own.

    Args:
        code: exit code; negative when a signal ended it.
        said: what dbt called an error, or its last lines.
    """
    text = said.strip() or "it said nothing"
    if code < 0:
        return DbtRunFailed(
            f"{command} on target {target} was ended from outside (signal {-code}) before it was done. "
            f"Was the machine out of memory? Log: {log_of(run_path)}",
            is_transient=False,
        )
    said = _readable(text)
    if _CONFIGURATION.search(text) and not is_transient(text, warehouse):
        return ConfigError(f"{command} could not start on target {target}: {said.rstrip()}")
    gap = "" if said.endswith("\n") else " "
    return DbtRunFailed(
        f"{command} failed on target {target}: {said}{gap}Log: {log_of(run_path)}",
        is_transient=is_transient(text, warehouse),
    )


def log_of(run_path: Path) -> Path:
    """Return the log of a run that people read."""
    return run_path / TEXT_LOG


def _readable(text: str) -> str:
    """Return what dbt said as it said it: an error of YAML or Jinja points at a place by its lines."""
    lines = [line for line in lines_of(text.removeprefix("Encountered an error:"), 40, 500, TEXT_LOG) if line.strip()]
    if len(lines) == 2 and _HEAD.fullmatch(lines[0].strip()):
        lines = [f"{lines[0].strip()}: {lines[1].strip()}"]
    if len(lines) < 2:
        said = lines[0].strip() if lines else "it said nothing"
        return said if said.endswith((".", "!", "?")) else f"{said}."
    return "\n  ".join([lines[0].strip(), *lines[1:]]) + "\n"
