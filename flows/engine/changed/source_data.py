"""How new the data of each source is, as dbt's freshness check finds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson

from flows.engine.artifacts.artifacts import SOURCES, Artifacts, SourceAge
from flows.engine.context.state import State
from infrastructure.private_files import write_whole

# Beside last_good/: what the pipeline's freshness check found right before its build.
_FILE = SOURCES


def keep_source_data(state: State, run_id: str, invocation_id: str | None) -> None:
    """Keep what a freshness check of this run found, for the build that follows it in the same run."""
    found = newest_rows(Artifacts(state.target_path).sources(invocation_id=invocation_id))
    write_whole(state.folder / _FILE, orjson.dumps({"run_id": run_id, "sources": found}))


def kept_source_data(state: State, run_id: str) -> dict[str, str] | None:
    """Return what a check earlier in this very run found; None when there was none."""
    try:
        document = cast(dict[str, Any], orjson.loads((state.folder / _FILE).read_bytes()))
        return dict(document["sources"]) if document["run_id"] == run_id else None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def newest_rows(ages: Mapping[str, SourceAge]) -> dict[str, str]:
    """Return max_loaded_at by unique id, as dbt says it, of the sources that it says it of."""
    return {unique_id: age.said for unique_id, age in ages.items() if age.said}
