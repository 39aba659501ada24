"""A page of its own for each model, seed, snapshot and source, inside the one file."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flows.engine.artifacts.descriptions import Description
from flows.engine.artifacts.manifest import TEST_TYPES
from flows.report.html.contents import Document
from flows.report.html.nodes import ProjectNodes

# What the pages may take as they are. Beyond, they are packed and a script unpacks the one that is opened.
PLAIN_CHARACTERS = 600_000
# What they may take packed. Beyond, long SQL is cut.
PACKED_CHARACTERS = 1_200_000
_SQL_CHARACTERS = (20_000, 4000, 0)
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class NodePage:
    """All that the page shows of a node.

    Attributes:
        row: its last result; None for a source that was never checked.
        parents, children: their names and the ids of their pages.
        tests: their last results, those that do not pass first.
        described: None where no manifest could be read, or the node is not in it.
        sql: cut where it is too long.
    """

    anchor: str
    unique_id: str
    name: str
    kind: str
    row: Document | None
    parents: Sequence[tuple[str, str]]
    children: Sequence[tuple[str, str]]
    tests: Sequence[Document]
    runs: Sequence[Document]
    described: Description | None
    sql: str
    is_sql_cut: bool


@dataclass(frozen=True)
class Pages:
    """The pages of all nodes: as they are, or packed; the other one is empty."""

    plain: Sequence[str] = ()
    packed: str = ""


def anchors(unique_ids: Sequence[str]) -> dict[str, str]:
    """Return the id of each node's page, which can stand in an address as it is."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for unique_id in unique_ids:
        anchor = base_name = f"node.{_NOT_IN_AN_ID.sub('_', unique_id)}"
        number = 1
        while anchor in taken:
            number += 1
            anchor = f"{base_name}.{number}"
        taken.add(anchor)
        found[unique_id] = anchor
    return found


def node_pages(
    nodes: ProjectNodes, described: Mapping[str, Description], ids: Mapping[str, str], sql_characters: int
) -> list[NodePage]:
    """Return the page of each node that has one."""
    tests: dict[str, list[Document]] = {}
    for row in nodes.rows.values():
        if row["resource_type"] in TEST_TYPES:
            for tested in row["tested"] or ():
                tests.setdefault(tested, []).append(row)

    def linked(unique_ids: Sequence[str]) -> list[tuple[str, str]]:
        return sorted((nodes.name(each), ids[each]) for each in unique_ids)

    pages: list[NodePage] = []
    for unique_id, anchor in ids.items():
        known = described.get(unique_id)
        sql = known.sql if known else ""
        pages.append(
            NodePage(
                anchor=anchor,
                unique_id=unique_id,
                name=nodes.name(unique_id),
                kind=unique_id.partition(".")[0],
                row=nodes.rows.get(unique_id),
                parents=linked(list(nodes.graph.predecessors(unique_id))),
                children=linked(list(nodes.graph.successors(unique_id))),
                tests=sorted(
                    tests.get(unique_id, ()), key=lambda row: (row["outcome"] == "succeeded", row["name"] or "")
                ),
                runs=nodes.runs.get(unique_id, ()),
                described=known,
                sql=sql[:sql_characters],
                is_sql_cut=len(sql) > sql_characters,
            )
        )
    return pages


def packed_pages(
    nodes: ProjectNodes,
    described: Mapping[str, Description],
    ids: Mapping[str, str],
    draw: Callable[[NodePage], str],
    rows: Callable[[], str],
) -> Pages:
    """Return the pages of all nodes as HTML, so that the file stays small enough to open at once.

    Args:
        draw: makes HTML of a page.
        rows: makes HTML of what else is packed where the pages are.
    """
    packed = ""
    for sql_characters in _SQL_CHARACTERS:
        drawn = {page.anchor: draw(page) for page in node_pages(nodes, described, ids, sql_characters)}
        if sum(map(len, drawn.values())) <= PLAIN_CHARACTERS:
            return Pages(plain=list(drawn.values()))
        document = json.dumps(drawn | {"rows": rows()})
        packed = base64.b64encode(gzip.compress(document.encode(), mtime=0)).decode()
        if len(packed) <= PACKED_CHARACTERS:
            break
    return Pages(packed=packed)
