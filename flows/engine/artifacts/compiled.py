"""The SQL that dbt compiled a project to, for running it without dbt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# What dbt does beside the statement that makes the table. A statement of plain SQL would leave it out.
_BESIDE = ("pre-hook", "post-hook", "pre_hook", "post_hook", "grants", "cluster_by", "copy_grants", "secure")


class Compiled(NamedTuple):
    """The SQL of one node.

    Attributes:
        sql: empty where dbt only parsed it.
        is_plain: whether dbt does nothing but make a table or view of it.
        is_transient: whether Snowflake need not be able to restore the table.
        counted, fails: of a test, what of the rows is counted and which count is a failure.
    """

    sql: str
    is_plain: bool
    is_transient: bool
    counted: str
    fails: str


def compiled_in(document: Mapping[str, Any]) -> dict[str, Compiled]:
    """Return the SQL of a manifest, all of it, by unique id."""
    entries: Mapping[str, Any] = {**(document.get("nodes") or {}), **(document.get("unit_tests") or {})}
    return {unique_id: _compiled(entry) for unique_id, entry in entries.items()}


def _compiled(entry: Mapping[str, Any]) -> Compiled:
    config: Mapping[str, Any] = entry.get("config") or {}
    return Compiled(
        sql=str(entry.get("compiled_code") or "").strip(),
        is_plain=entry.get("language", "sql") == "sql"
        and not any(config.get(name) for name in _BESIDE)
        and not (config.get("contract") or {}).get("enforced")
        and not any((config.get("persist_docs") or {}).values()),
        is_transient=config.get("transient") is not False,
        counted=config.get("fail_calc") or "count(*)",
        fails=config.get("error_if") or "!= 0",
    )


def compiled_results(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the SQL of a run_results.json by the name of the node; of a node without SQL there is none."""
    return {
        str(entry["unique_id"]).split(".", 2)[-1]: str(entry["compiled_code"]).strip()
        for entry in document.get("results") or ()
        if entry.get("compiled_code")
    }
