"""The charts: Vega-Lite specifications, drawn as SVG on this machine, so that the page needs no script to show them.

Colours are the page's CSS variables: one drawing serves light and dark.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flows.report.html.contents import Contents, is_hook
from flows.report.html.words import clock, moment
from infrastructure.errors import ConfigError

OUTCOME_COLOURS = {
    "succeeded": "var(--good-bar)",
    "warned": "var(--warn)",
    "failed": "var(--bad)",
    "skipped": "var(--idle)",
    "cancelled": "var(--idle)",
}
CRITICAL = "critical path"
HOOK_BAR = "hook"
WIDTH = 1000
# Average pixels of a bar of the last run; a chart that is wider than the page can be scrolled.
_PIXELS_PER_NODE = 4
_MAX_WIDTH = 6000
# What stands between the label of a run's bar and its number, so that runs of one moment have a bar each.
_BAR_OF = "|"
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
}
# Vega gives sixteen digits; a hundredth of a pixel is not seen.
_PATH = re.compile(r' d="[^"]*"')
_DECIMALS = re.compile(r"(\d\.\d\d)\d+")
# What Vega adds to each mark beside its label, the same five thousand times.
_CHATTER = re.compile(r' (?:role="graphics-symbol"|aria-roledescription="[^"]*"|stroke-miterlimit="10")')


def runs_chart(runs: Sequence[Mapping[str, Any]]) -> str:
    """Draw how long each build took, in the colour of its outcome."""
    starts, (unit, unit_seconds) = _starts(runs), _unit(max((run["seconds"] for run in runs), default=0.0))
    values = [
        {
            "run": f"{start}{_BAR_OF}{number}",
            "took": run["seconds"] / unit_seconds,
            "outcome": run["run_outcome"],
            "label": f"{start}: {run['run_outcome']} in {clock(run['seconds'])}, "
            f"{run['nodes']} nodes, {run['failed']} failed",
        }
        for number, (run, start) in enumerate(zip(runs, starts, strict=True))
    ]
    return _draw(
        {
            "width": WIDTH,
            "height": 180,
            "data": {"values": values},
            "mark": {"type": "bar", "cornerRadiusEnd": 2, "width": _bar_width(len(runs))},
            "encoding": {
                "x": _by_run("run"),
                "y": {"field": "took", "type": "quantitative", "title": unit, "stack": None, "axis": {"tickCount": 5}},
                "color": _by_outcome("outcome"),
                "description": {"field": "label"},
            },
        }
    )


def tests_chart(runs: Sequence[Mapping[str, Any]]) -> str:
    """Draw how many tests of each run did not pass."""
    values = [
        {
            "run": f"{start}{_BAR_OF}{number}",
            "outcome": outcome,
            "tests": run[outcome],
            "label": f"{start}: {run[outcome]} of {run['total']} tests {outcome}",
        }
        for number, (run, start) in enumerate(zip(runs, _starts(runs), strict=True))
        for outcome in ("failed", "warned", "skipped")
    ]
    most = max((run["failed"] + run["warned"] + run["skipped"] for run in runs), default=0)
    return _draw(
        {
            "width": WIDTH,
            "height": 130,
            "data": {"values": values},
            "mark": {"type": "bar", "width": _bar_width(len(runs))},
            "encoding": {
                "x": _by_run("run"),
                "y": {
                    "field": "tests",
                    "type": "quantitative",
                    "title": "tests not passed",
                    "scale": {"domain": [0, max(most, 4)]},
                    "axis": {"tickCount": 4, "format": "d"},
                },
                "color": _by_outcome("outcome"),
                "description": {"field": "label"},
            },
        }
    )


def gantt_width(contents: Contents) -> int:
    """Return how wide the chart of the last run has to be for its bars to be told apart."""
    busiest = max(Counter(node["thread"] for node in contents.nodes).values(), default=0)
    return max(WIDTH, min(_MAX_WIDTH, busiest * _PIXELS_PER_NODE))


def gantt_chart(contents: Contents) -> str:
    """Draw when each node of the last build ran, one lane per thread, with the critical path on top."""
    critical = {node["unique_id"] for node in contents.critical_path}
    threads = sorted({_lane_key(node) for node in contents.nodes} - {HOOK_BAR}, key=_thread_number)
    lanes = {thread: f"thread {number}" for number, thread in enumerate(threads, start=1)}
    if any(is_hook(node) for node in contents.nodes):
        lanes[HOOK_BAR] = "hooks"
    values = [_bar(node, lanes[_lane_key(node)], node["unique_id"] in critical) for node in contents.nodes]
    values.sort(key=lambda value: value["kind"] == CRITICAL)
    colours = {"succeeded": "var(--calm)", CRITICAL: "var(--accent)", HOOK_BAR: "var(--hook)"} | {
        outcome: colour for outcome, colour in OUTCOME_COLOURS.items() if outcome != "succeeded"
    }
    return _draw(
        {
            "width": gantt_width(contents),
            "height": {"step": 26},
            "data": {"values": values},
            "mark": {"type": "bar", "height": {"band": 0.82}, "stroke": "var(--card)", "strokeWidth": 0.5},
            "encoding": {
                "y": {
                    "field": "lane",
                    "type": "nominal",
                    "title": None,
                    "sort": list(lanes.values()),
                    "axis": {"ticks": False, "domain": False},
                },
                "x": {
                    "field": "start",
                    "type": "quantitative",
                    "title": "seconds from the start of the first node",
                    "scale": {"nice": False},
                    "axis": {"tickCount": 12, "labelOverlap": "greedy", "labelSeparation": 8},
                },
                "x2": {"field": "end"},
                "color": {
                    "field": "kind",
                    "type": "nominal",
                    "legend": None,
                    "scale": {"domain": list(colours), "range": list(colours.values())},
                },
                "description": {"field": "label"},
            },
        }
    )


def _bar(node: Mapping[str, Any], lane: str, is_critical: bool) -> dict[str, Any]:
    hook = "hook " if is_hook(node) else ""
    label = f"{hook}{node['name']}: {clock(node['seconds'])} from {clock(node['start'])}, {node['outcome']}"
    is_plain = node["outcome"] == "succeeded"
    return {
        "lane": lane,
        "start": round(node["start"], 3),
        "end": round(max(node["end"], node["start"] + 0.001), 3),
        "kind": (HOOK_BAR if hook else CRITICAL if is_critical else "succeeded") if is_plain else node["outcome"],
        "label": f"{label}, on the critical path" if is_critical else label,
    }


def _starts(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return when runs began, to the second where two of them began in one minute."""
    minutes = [moment(run["run_started_at"]) for run in runs]
    if len(set(minutes)) == len(minutes):
        return minutes
    return [f"{minute}:{run['run_started_at']:%S}" for minute, run in zip(minutes, runs, strict=True)]


def _unit(longest_seconds: float) -> tuple[str, int]:
    """Return the unit in which durations are drawn, and its seconds."""
    units = (("hours", 3600), ("minutes", 60))
    return next((unit for unit in units if longest_seconds >= 2 * unit[1]), ("seconds", 1))


def _lane_key(node: Mapping[str, Any]) -> str:
    return HOOK_BAR if is_hook(node) else node["thread"] or ""


def _bar_width(runs: int) -> float:
    # A single run must not become a bar as wide as the page.
    return min(32.0, 0.75 * WIDTH / max(runs, 1))


def _by_run(field: str) -> dict[str, Any]:
    return {
        "field": field,
        "type": "ordinal",
        "sort": None,
        "title": None,
        "axis": {
            "aria": False,
            "labelExpr": f"split(datum.label, '{_BAR_OF}')[0]",
            "labelAngle": 0,
            "labelOverlap": "greedy",
            "labelSeparation": 24,
            "labelPadding": 8,
            "ticks": False,
        },
        "scale": {"paddingInner": 0.25},
    }


def _by_outcome(field: str) -> dict[str, Any]:
    scale = {"domain": list(OUTCOME_COLOURS), "range": list(OUTCOME_COLOURS.values())}
    return {"field": field, "type": "nominal", "legend": None, "scale": scale}


def _thread_number(thread: str) -> tuple[int, str]:
    number = re.search(r"\d+", thread)
    return (int(number[0]) if number else 0, thread)


def _draw(specification: Mapping[str, Any]) -> str:
    """Return a specification as SVG.

    Raises:
        ConfigError: the library that draws is not installed.
    """
    try:
        import vl_convert
    except ImportError as exc:
        raise ConfigError(
            "The library that draws the report is not installed. Install it: uv sync --extra report"
        ) from exc
    config = _CONFIG | specification.get("config", {})
    svg = vl_convert.vegalite_to_svg(dict(specification) | {"config": config}, vl_version="5.20")
    return _PATH.sub(lambda path: _DECIMALS.sub(r"\1", path[0]), _CHATTER.sub("", svg))
