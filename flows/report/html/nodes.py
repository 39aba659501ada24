"""The nodes of the project, one by one: their last results, their runs, and what they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from flows.report.html.contents import TREND_BUILDS, Contents, Document, documents
from flows.report.html.lineage import Lineage, graph_of, name_of, read_lineage

if TYPE_CHECKING:
    import networkx
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class ProjectNodes:
    """The nodes that are in the project now.

    Attributes:
        rows: the last result of each, by unique id.
        runs: the last runs of each, oldest first.
        graph: what reads what among models, seeds, snapshots and sources.
    """

    rows: Mapping[str, Document]
    runs: Mapping[str, Sequence[Document]]

    @cached_property
    def graph(self) -> networkx.DiGraph[str]:
        """Return what reads what among models, seeds, snapshots and sources."""
        return graph_of(self.rows.values())

    def lineage(self, contents: Contents) -> Lineage:
        """Return the lineage of what is failing and of what is slow."""
        slower = [model["unique_id"] for model in contents.models if model["regression"]]
        return read_lineage(self.graph, list(self.rows.values()), contents.critical_path, slower)

    def name(self, unique_id: str) -> str:
        """Return what people call a node."""
        return name_of(unique_id, self.rows)


def read_nodes(history: DuckDBPyConnection) -> ProjectNodes:
    """Query the history for the nodes of the project.

    Args:
        history: a connection whose views have one project and target only.
    """
    latest = documents(
        history,
        "select unique_id, name, resource_type, materialized, relation, tags, owner, is_critical, tested, depends_on, "
        "path, outcome, started_at, seconds, rows_affected, failures, message from latest order by unique_id",
    )
    runs = documents(
        history,
        f"""
        select
            unique_id,
            list({{'seconds': seconds, 'outcome': outcome, 'started_at': started_at}} order by started_at desc)
                [:{TREND_BUILDS}] as runs
        from nodes
        where outcome is not null and resource_type in ('model', 'seed', 'snapshot')
        group by unique_id
        """,
    )
    return ProjectNodes(
        {row["unique_id"]: row for row in latest}, {row["unique_id"]: row["runs"][::-1] for row in runs}
    )
