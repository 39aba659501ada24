"""Put the models that dashboards read into their cache as soon as they are built."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.context.project import Project
from flows.engine.context.reporting import current_reporter
from flows.engine.process.show import show_rows
from flows.services.redis_cache import find_cache_url, open_cache
from infrastructure.errors import TributaryError
from infrastructure.profiles import Profile

# A dashboard reads a summary. A larger table is left out, and its readers query the warehouse.
MAX_ROWS = 10_000
_TAG = "dashboard"


def warm(build: DbtResult, project: Project, profile: Profile, hours: float) -> dict[str, int]:
    """Put the rows of every built model with the tag dashboard into the cache; return the number of rows by model.

    A cache that does not answer fails no build: its documents are old, and expire.
    """
    reporter = current_reporter()
    url = find_cache_url()
    if url is None:
        reporter.note("No dashboard cache is set up, so none is filled: see `dashboard_cache` in targets.yml.")
        return {}
    reporter.stage(f"dashboard cache of {profile.target}")
    try:
        documents = {node.name: found for node in _dashboards(build) if (found := _document(node, project, profile))}
        with open_cache(url, profile.target) as cache:
            cache.replace(documents, hours)
    except TributaryError as exc:
        reporter.note(f"The dashboard cache was not filled. {exc}")
        return {}
    return {name: document["row_count"] for name, document in documents.items()}


def _dashboards(build: DbtResult) -> list[NodeResult]:
    nodes = build.artifacts.manifest.nodes
    return [
        node
        for node in build.of("succeeded")
        if node.relation and (known := nodes.get(node.unique_id)) and _TAG in known.tags
    ]


def _document(node: NodeResult, project: Project, profile: Profile) -> dict[str, Any] | None:
    # One row more than fits, to recognise a table that is too large.
    rows = show_rows(str(node.relation), MAX_ROWS + 1, project, profile)
    if len(rows) > MAX_ROWS:
        current_reporter().note(f"{node.name} has more than {MAX_ROWS:,} rows, which is too many for the cache.")
        return None
    return {
        "model": node.name,
        "built_at": node.finished_at,
        "cached_at": datetime.now(UTC),
        "row_count": len(rows),
        "rows": rows,
    }
