"""Drawings of our own as SVG: the lineage, and the small line of a node's last runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup, escape

from flows.report.html.layout import Point, layered
from flows.report.html.lineage import Lineage, LineageNode
from flows.report.html.words import clock, kind

_BOX_WIDTH, _BOX_HEIGHT, _GAP, _STEP, _EDGE = 214, 42, 58, 56, 12
_NAME_CHARACTERS = 27
_COLOURS = {"failed": "var(--bad)", "warned": "var(--warn)", "succeeded": "var(--good)"}


def cut_in_the_middle(name: str, characters: int = _NAME_CHARACTERS) -> str:
    """Return a name that is at most so long: names of one project differ at their ends."""
    if len(name) <= characters:
        return name
    head = (characters - 1) // 2
    return f"{name[:head]}…{name[len(name) - (characters - 1 - head) :]}"


def lineage_svg(lineage: Lineage, anchor: Callable[[str], str | None]) -> Markup:
    """Draw the lineage from left to right; empty for none.

    Args:
        anchor: the id of a node's own part of the page; None where it has none.
    """
    if not lineage.nodes:
        return Markup()
    layout = layered([node.unique_id for node in lineage.nodes], list(lineage.edges))
    width = layout.layers * (_BOX_WIDTH + _GAP) - _GAP + 2 * _EDGE
    height = layout.height * _STEP + _BOX_HEIGHT + 2 * _EDGE
    path = set(pairwise(lineage.path))
    edges = Markup().join(
        _edge(layout.routes[edge], is_direct, edge in path) for edge, is_direct in lineage.edges.items()
    )
    boxes = Markup().join(_box(node, layout.places[node.unique_id], anchor(node.unique_id)) for node in lineage.nodes)
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="lineage" width="{w}" height="{h:.0f}" '
        'viewBox="0 0 {w} {h:.0f}"><g fill="none" stroke-width="1.5">{edges}</g>{boxes}</svg>'
    ).format(w=width, h=height, edges=edges, boxes=boxes)


def state_of(node: LineageNode) -> str:
    """Return how a node is, in words."""
    if node.failing_tests and node.outcome in ("failed", "warned"):
        tests = f"{node.failing_tests} test{'' if node.failing_tests == 1 else 's'}"
        return f"{tests} {node.outcome}"
    if node.kind == "source":
        return {"failed": "too old", "warned": "late", "succeeded": "fresh"}.get(node.outcome or "", "not checked")
    return {"skipped": "held back", None: "not run"}.get(node.outcome, node.outcome or "")


def _box(node: LineageNode, place: Point, anchor: str | None) -> Markup:
    x, y = _corner(place)
    parts = [kind(node.kind), state_of(node), clock(node.seconds) if node.kind != "source" else ""]
    said = " · ".join(part for part in parts if part)
    path = ", on the critical path" if node.is_on_path else ""
    drawn = Markup(
        '<g class="{classes}" role="img" aria-label="{label}" transform="translate({x:.0f},{y:.1f})">'
        '<rect width="{w}" height="{h}" rx="7"/>'
        '<path d="M7,0h-1a6,6 0 0 0 -6,6v{side}a6,6 0 0 0 6,6h1z" fill="{colour}"/>'
        '<text x="15" y="18">{name}</text><text x="15" y="34" class="state">{said}</text></g>'
    ).format(
        classes=f"node {node.outcome or ''}{' path' if node.is_on_path else ''}",
        label=f"{node.name}: {said}{path}",
        x=x,
        y=y,
        w=_BOX_WIDTH,
        h=_BOX_HEIGHT,
        side=_BOX_HEIGHT - 12,
        colour=_COLOURS.get(node.outcome or "", "var(--idle)"),
        name=cut_in_the_middle(node.name),
        said=said,
    )
    return Markup('<a href="#{}">{}</a>').format(anchor, drawn) if anchor else drawn


def _edge(route: Sequence[Point], is_direct: bool, is_on_path: bool) -> Markup:
    corners = [_corner(point) for point in route]
    middle = _BOX_HEIGHT / 2
    d = f"M{corners[0][0] + _BOX_WIDTH:.0f},{corners[0][1] + middle:.1f}"
    for number, ((x0, y0), (x, y)) in enumerate(pairwise(corners), start=2):
        bend = (x0 + _BOX_WIDTH + x) / 2
        d += f"C{bend:.0f},{y0 + middle:.1f} {bend:.0f},{y + middle:.1f} {x:.0f},{y + middle:.1f}"
        if number < len(corners):
            d += f"h{_BOX_WIDTH}"
    return Markup('<path d="{}" stroke="{}"{}/>').format(
        d,
        "var(--accent)" if is_on_path else "var(--calm)",
        Markup("") if is_direct else Markup(' stroke-dasharray="4 4"'),
    )


def _corner(point: Point) -> Point:
    return _EDGE + point[0] * (_BOX_WIDTH + _GAP), _EDGE + point[1] * _STEP


def runs_line(runs: Sequence[Mapping[str, object]], width: int = 90, height: int = 18) -> Markup:
    """Draw the durations of a node's last runs as a small line, oldest first; empty for fewer than two.

    Args:
        runs: with `seconds` and `outcome`; one that did not succeed has a dot in the colour of its outcome.
    """
    if len(runs) < 2:
        return Markup()
    seconds = [float(str(run["seconds"] or 0)) for run in runs]
    longest = max(seconds) or 1.0
    step = (width - 8) / (len(runs) - 1)
    points = [(4 + number * step, height - 4 - (height - 8) * value / longest) for number, value in enumerate(seconds)]
    dots = Markup().join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>').format(x, y, colour)
        for number, ((x, y), run) in enumerate(zip(points, runs, strict=True))
        if (colour := _dot(run["outcome"], is_last=number == len(runs) - 1))
    )
    label = f"the last {len(runs)} runs took {clock(seconds[0])} to {clock(seconds[-1])}, at most {clock(longest)}"
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{}" width="{}" height="{}">'
        '<polyline fill="none" stroke="var(--accent)" stroke-width="1.5" points="{}"/>{}</svg>'
    ).format(label, width, height, " ".join(f"{x:.1f},{y:.1f}" for x, y in points), dots)


def _dot(outcome: object, is_last: bool) -> str:
    if outcome == "succeeded":
        return "var(--accent)" if is_last else ""
    return _COLOURS.get(str(escape(outcome)), "var(--idle)")
