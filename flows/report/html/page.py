"""Render contents and charts as one HTML file that loads nothing from the network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.engine.artifacts.descriptions import Description, read_descriptions
from flows.history.rows import utc
from flows.history.store import HistoryStore
from flows.report.html import charts, drawings, words
from flows.report.html.contents import Contents, Document, is_hook, read_contents
from flows.report.html.filters import filters_of
from flows.report.html.node_pages import NodePage, anchors, packed_pages
from flows.report.html.nodes import ProjectNodes, read_nodes
from infrastructure.commands import program
from infrastructure.errors import ConfigError
from infrastructure.private_files import private_folder, write_whole

DAYS = 30
# Enough to see the cause; a run in which everything failed has thousands.
SHOWN_FAILING = 100
SHOWN_PATH = 30
# Of the nodes of the last run; a browser takes seconds to read thousands of rows, so that the others are packed.
SHOWN_NODES = 300
_HERE = Path(__file__).parent
_SECTIONS = (
    ("failing", "Failing now"),
    ("lineage", "Lineage"),
    ("runs", "Runs over time"),
    ("last", "Last run"),
    ("models", "Slowest models"),
    ("tests", "Tests"),
    ("sources", "Sources"),
    ("cost", "Cost"),
)


def write_report(
    store: HistoryStore,
    project: str,
    target: str,
    output: Path,
    days: int = DAYS,
    price_per_tebibyte: float | None = None,
    artifacts: Sequence[Path] = (),
) -> Contents:
    """Write the report of a project on a target, whole or not at all, and return its contents.

    Args:
        artifacts: folders in which dbt left what the history does not have: columns and
            compiled SQL. The first counts most.

    Raises:
        ConfigError: the file can't be written, the history can't be read, or the library that draws is missing.
        UpstreamUnavailable: the history did not answer.
    """
    with store.reading(project, target) as history:
        now = utc(datetime.now(UTC))
        contents = read_contents(history, project, target, now, days, price_per_tebibyte)
        nodes = read_nodes(history)
    text = render(contents, nodes, read_descriptions(artifacts))
    try:
        private_folder(output.parent)
        write_whole(output, text.encode(), keeps_mode=True)
    except OSError as exc:
        raise ConfigError(f"The report can't be written to {output}: {exc.strerror}. Name another --output.") from exc
    return contents


def render(contents: Contents, nodes: ProjectNodes, described: Mapping[str, Description]) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FileSystemLoader(_HERE))

    def ago(then: datetime | None) -> str:
        return words.ago(then, contents.now)

    def names(unique_ids: Iterable[str]) -> str:
        return ", ".join(map(nodes.name, unique_ids))

    filters: dict[str, Callable[..., object]] = {
        "clock": words.clock,
        "ago": ago,
        "moment": words.moment,
        "kind": words.kind,
        "state": drawings.state_of,
        "line": drawings.runs_line,
        "names": names,
        "size": words.size,
        "share": words.share,
    }
    environment.filters.update(filters)
    lineage = nodes.lineage(contents)
    ids = anchors(sorted(nodes.graph))
    template = environment.get_template("node.html.j2")

    def page_of(page: NodePage) -> str:
        return template.render(page=page)

    shared: dict[str, Any] = {"ids": ids, "filters": filters_of(nodes.rows)}
    environment.globals.update(shared)
    row_of: Callable[[Document], str] = vars(environment.get_template("rows.html.j2").module)["row_of"]
    pages = packed_pages(nodes, described, ids, page_of, lambda: "".join(map(row_of, contents.nodes[SHOWN_NODES:])))
    drawn = {
        "runs": Markup(charts.runs_chart(contents.runs) if contents.runs else ""),  # noqa: S704  (ours, and escaped)
        "gantt": Markup(charts.gantt_chart(contents) if contents.nodes else ""),  # noqa: S704
        "gantt_is_wide": charts.gantt_width(contents) > charts.WIDTH,
        "tests": Markup(charts.tests_chart(contents.test_runs) if contents.test_runs else ""),  # noqa: S704
    }
    for model in contents.models:
        model["chart"] = drawings.runs_line(model["trend"])
    return environment.get_template("page.html.j2").render(
        c=contents,
        program=program(),
        charts=drawn,
        lineage=lineage,
        shown_nodes=contents.nodes[:SHOWN_NODES] if pages.packed else contents.nodes,
        pages=[Markup(page) for page in pages.plain],  # noqa: S704  (of a template of ours, which escaped it)
        packed=pages.packed,
        drawn_lineage=drawings.lineage_drawing(lineage, ids.get),
        box=(drawings.BOX_WIDTH, drawings.BOX_HEIGHT),
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=f"sha256-{digest}",
        headline=words.headline(contents),
        sections=_SECTIONS,
        hooks=[node for node in contents.nodes if is_hook(node)],
        shown_failing=SHOWN_FAILING,
        shown_path=_longest(contents),
        fresh=sum(source["outcome"] == "succeeded" for source in contents.sources),
        path_seconds=sum(node["seconds"] for node in contents.critical_path),
        path_queue=sum(node["queue_seconds"] for node in contents.critical_path),
    )


def _longest(contents: Contents) -> list[Document]:
    """Return the critical path in order; only its longest nodes where it has too many."""
    longest = sorted(contents.critical_path, key=lambda node: -node["seconds"])[:SHOWN_PATH]
    shown = {node["unique_id"] for node in longest}
    return [node for node in contents.critical_path if node["unique_id"] in shown]
