"""Drawings of our own, as figures that the template makes SVG of: the lineage, and the line of a node's last runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from flows.report.html.layout import Point, layered
from flows.report.html.lineage import Lineage, LineageNode
from flows.report.html.words import clock, kind
from infrastructure.plain_text import count_of

BOX_WIDTH, BOX_HEIGHT = 214, 42
_GAP, _STEP, _EDGE = 58, 56, 12
_NAME_CHARACTERS = 27
_LINE_WIDTH, _LINE_HEIGHT, _LINE_EDGE = 90, 18, 4
_COLOURS = {"failed": "var(--bad)", "warned": "var(--warn)", "succeeded": "var(--good)"}


@dataclass(frozen=True)
class Box:
    """A node as it is drawn.

    Attributes:
        name: cut to fit.
        said: its kind, its state and how long it took.
        label: all of it, for those who hear the page or point at it.
        anchor: the id of its own part of the page; None where it has none.
    """

    x: float
    y: float
    name: str
    said: str
    label: str
    classes: str
    colour: str
    anchor: str | None


@dataclass(frozen=True)
class Line:
    """An edge as it is drawn: a path of SVG."""

    path: str
    is_direct: bool
    is_critical: bool


@dataclass(frozen=True)
class LineageDrawing:
    """The lineage from left to right."""

    width: float
    height: float
    lines: Sequence[Line]
    boxes: Sequence[Box]


@dataclass(frozen=True)
class RunsLine:
    """The durations of a node's last runs, oldest first; a run that did not succeed has a dot, and so has the last."""

    width: int
    height: int
    label: str
    points: str
    dots: Sequence[tuple[float, float, str]]


def cut_in_the_middle(name: str, characters: int = _NAME_CHARACTERS) -> str:
    """Return a name that is at most so long: names of one project differ at their ends."""
    if len(name) <= characters:
        return name
    head = (characters - 1) // 2
    return f"{name[:head]}…{name[len(name) - (characters - 1 - head) :]}"


def lineage_drawing(lineage: Lineage, anchor: Callable[[str], str | None] = lambda _: None) -> LineageDrawing:
    """Return where everything of a lineage stands.

    Args:
        anchor: the id of a node's own part of the page; None where it has none.
    """
    layout = layered([node.unique_id for node in lineage.nodes], list(lineage.edges))
    path = set(pairwise(lineage.path))
    return LineageDrawing(
        width=layout.layers * (BOX_WIDTH + _GAP) - _GAP + 2 * _EDGE,
        height=round(layout.height * _STEP + BOX_HEIGHT + 2 * _EDGE),
        lines=[Line(_path(layout.routes[edge]), is_direct, edge in path) for edge, is_direct in lineage.edges.items()],
        boxes=[_box(node, layout.places[node.unique_id], anchor(node.unique_id)) for node in lineage.nodes],
    )


def state_of(node: LineageNode) -> str:
    """Return how a node is, in words."""
    if node.failing_tests and node.outcome in ("failed", "warned"):
        return f"{count_of(node.failing_tests, 'test')} {node.outcome}"
    if node.kind == "source":
        return {"failed": "too old", "warned": "late", "succeeded": "fresh"}.get(node.outcome or "", "not checked")
    return {"skipped": "held back", None: "not run"}.get(node.outcome, node.outcome or "")


def _box(node: LineageNode, place: Point, anchor: str | None) -> Box:
    x, y = _corner(place)
    parts = [kind(node.kind), state_of(node), clock(node.seconds) if node.kind != "source" else ""]
    said = " · ".join(part for part in parts if part)
    return Box(
        x=round(x),
        y=round(y, 1),
        name=cut_in_the_middle(node.name),
        said=said,
        label=f"{node.name}: {said}{', on the critical path' if node.is_on_path else ''}",
        classes=f"node {node.outcome or ''}{' path' if node.is_on_path else ''}",
        colour=_COLOURS.get(node.outcome or "", "var(--idle)"),
        anchor=anchor,
    )


def _path(route: Sequence[Point]) -> str:
    corners = [_corner(point) for point in route]
    middle = BOX_HEIGHT / 2
    drawn = f"M{corners[0][0] + BOX_WIDTH:.0f},{corners[0][1] + middle:.1f}"
    for number, ((x0, y0), (x, y)) in enumerate(pairwise(corners), start=2):
        bend = (x0 + BOX_WIDTH + x) / 2
        drawn += f"C{bend:.0f},{y0 + middle:.1f} {bend:.0f},{y + middle:.1f} {x:.0f},{y + middle:.1f}"
        if number < len(corners):
            drawn += f"h{BOX_WIDTH}"
    return drawn


def _corner(point: Point) -> Point:
    return _EDGE + point[0] * (BOX_WIDTH + _GAP), _EDGE + point[1] * _STEP


def runs_line(runs: Sequence[Mapping[str, object]]) -> RunsLine | None:
    """Return the line of a node's last runs; None for fewer than two.

    Args:
        runs: with `seconds` and `outcome`, oldest first.
    """
    if len(runs) < 2:
        return None
    seconds = [float(str(run["seconds"] or 0)) for run in runs]
    longest = max(seconds) or 1.0
    step, room = (_LINE_WIDTH - 2 * _LINE_EDGE) / (len(runs) - 1), _LINE_HEIGHT - 2 * _LINE_EDGE
    points = [
        (round(_LINE_EDGE + number * step, 1), round(_LINE_EDGE + room * (1 - value / longest), 1))
        for number, value in enumerate(seconds)
    ]
    dots = [(x, y, _dot(run["outcome"])) for (x, y), run in zip(points, runs, strict=True)]
    return RunsLine(
        _LINE_WIDTH,
        _LINE_HEIGHT,
        f"The last {count_of(len(runs), 'run')}, from {clock(seconds[0])} to {clock(seconds[-1])}, at most "
        f"{clock(longest)}",
        " ".join(f"{x},{y}" for x, y in points),
        [dot for run, dot in zip(runs, dots, strict=True) if run["outcome"] != "succeeded" or dot is dots[-1]],
    )


def _dot(outcome: object) -> str:
    return "var(--accent)" if outcome == "succeeded" else _COLOURS.get(str(outcome), "var(--idle)")
