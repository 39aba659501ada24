"""Why dbt failed, and whether trying again can help."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from flows.engine.results import DbtResult, NodeResult
from flows.engine.state import TEXT_LOG
from flows.engine.transient import is_transient
from infrastructure.errors import ConfigError, DbtRunFailed, TributaryError, preview

# What dbt says when a person has to change something before any run can work.
_CONFIGURATION = re.compile(
    r"could not find profile named|does not have a target named|profiles?\.yml|dbt_project\.yml"
    r"|dbt deps|no such option|invalid value for|could not find adapter type|env var required but not provided"
    r"|credentials in profile|parsing error: invalid selector|could not find selector",
    re.IGNORECASE,
)


def is_passing(node: NodeResult, warehouse: str) -> bool:
    """Say whether a node failed for a reason that a later try can get past; a failing test never does."""
    return node.outcome == "failed" and node.status != "fail" and is_transient(node.message, warehouse)


def retryable(nodes: Sequence[NodeResult], warehouse: str) -> bool:
    """Say whether every failed node failed for a transient reason, so that the same run may succeed a little later."""
    failed = [node for node in nodes if node.outcome == "failed"]
    return bool(failed) and all(is_passing(node, warehouse) for node in failed)


def failure_of(result: DbtResult, warehouse: str) -> DbtRunFailed:
    """Return the error that says which nodes of a command failed, and why the first one did."""
    failed = result.of("failed")
    skipped = result.of("skipped")
    first = failed[0] if failed else None
    because = f" {first.name}: {one_line(first.message)}." if first and first.message else ""
    left = f" {len(skipped)} were skipped because of them." if skipped else ""
    return DbtRunFailed(
        f"{result.command} failed on target {result.target} for {len(failed)} of {len(result.nodes)} nodes: "
        f"{preview([node.name for node in failed])}.{because}{left} Log: {log_of(result.run_path)}",
        failed=[node.unique_id for node in failed],
        skipped=[node.unique_id for node in skipped],
        is_transient=retryable(result.nodes, warehouse),
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
    if _CONFIGURATION.search(text) and not is_transient(text, warehouse):
        return ConfigError(f"{command} could not start on target {target}: {_readable(text)}")
    return DbtRunFailed(
        f"{command} failed on target {target}: {_readable(text)} Log: {log_of(run_path)}",
        is_transient=is_transient(text, warehouse),
    )


def log_of(run_path: Path) -> Path:
    """Return the log of a run that people read."""
    return run_path / TEXT_LOG


def one_line(text: str, limit: int = 300) -> str:
    """Return a message on one line, shortened for a sentence."""
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else f"{joined[: limit - 1]}…"


def _readable(text: str) -> str:
    lines = [line.strip() for line in text.removeprefix("Encountered an error:").splitlines() if line.strip()]
    sentence = one_line(" ".join(lines), 600)
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
