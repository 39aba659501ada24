"""How new the data of each source is, as dbt's freshness check finds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson

from flows.engine.context.state import State
from infrastructure.private_files import write_whole

# dbt's name for it; ours lies beside last_good/: what the pipeline's freshness check found right before its build.
_FILE = "sources.json"


def keep_source_data(state: State, run_id: str, invocation_id: str | None) -> None:
    """Keep what a freshness check of this run found, for the build that follows it in the same run."""
    path = state.target_path / _FILE
    found = max_loaded_at(path.read_bytes() if path.exists() else b"", invocation_id)
    write_whole(state.folder / _FILE, orjson.dumps({"run_id": run_id, "sources": found}))


def kept_source_data(state: State, run_id: str) -> dict[str, str] | None:
    """Return what a check earlier in this very run found; None when there was none."""
    try:
        document = cast(dict[str, Any], orjson.loads((state.folder / _FILE).read_bytes()))
        return dict(document["sources"]) if document["run_id"] == run_id else None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def max_loaded_at(content: bytes, invocation_id: str | None = None) -> dict[str, str]:
    """Return it by unique id from the content of a sources.json; nothing where another command of dbt wrote that."""
    try:
        document = cast(dict[str, Any], orjson.loads(content))
        if invocation_id and document["metadata"]["invocation_id"] != invocation_id:
            return {}
        entries = cast(list[Mapping[str, Any]], document["results"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {}
    return {str(entry["unique_id"]): str(entry["max_loaded_at"]) for entry in entries if entry.get("max_loaded_at")}
