"""Figures of the report in words."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from flows.engine.context.events import HOOK
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from flows.report.html.contents import Contents


def clock(seconds: float | None) -> str:
    """Return a duration with fitting detail, such as "0.35 s", "12.3 s", "3 min 05 s" or "2 h 10 min"."""
    if seconds is None:
        return ""
    if seconds < 0.005:
        return "0 s"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


def ago(then: datetime | None, now: datetime) -> str:
    """Return how long ago a moment was, in one unit, such as "3 hours ago"."""
    if then is None:
        return "never"
    seconds = max(0.0, (now - then).total_seconds())
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count_of(count, unit)} ago"
    return "just now"


def moment(then: datetime | None) -> str:
    """Return a moment to the minute; UTC."""
    return f"{then:%b} {then.day}, {then:%H:%M}" if then else "never"


def kind(resource_type: str) -> str:
    """Return what people call a kind of node: dbt's name of a hook is operation."""
    return "hook" if resource_type == HOOK else resource_type.replace("_", " ")


def size(count: float | None) -> str:
    """Return a number of bytes with a unit."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def share(part: float, whole: float) -> str:
    """Return a percentage that is 100 only when nothing is missing."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    return "100 %" if part == whole else f"{min(percent, 99.9):.1f} %"


def headline(contents: Contents) -> str:
    """Return the most important fact in a few words."""
    if contents.last is None:
        return "Nothing has been run yet"
    outcomes = [node["outcome"] for node in contents.failing]
    ages = [source["outcome"] for source in contents.sources]
    parts = [
        _count(outcomes.count("failed"), "node", "failing"),
        _count(outcomes.count("skipped"), "node", "held back"),
        _count(ages.count("failed"), "source", "too old"),
        _count(outcomes.count("warned"), "node", "with a warning"),
        _count(ages.count("warned"), "source", "late"),
    ]
    said = [part for part in parts if part]
    if not said and contents.last["run_outcome"] == "failed":
        return "The last run failed"
    if not said and contents.last["run_outcome"] == "cancelled":
        return "The last run was cancelled"
    return ", ".join(said) or "All is well"


def _count(number: int, noun: str, what: str) -> str:
    return f"{count_of(number, noun)} {what}" if number else ""
