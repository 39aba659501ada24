"""Find faults in tables of versions: several or no current versions, overlaps, gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.runbook.project_tables import Versions
from flows.warehouses.warehouse import Warehouse

# In the order in which a reader should look at them.
FAULTS = {
    "duplicate": "more than one current version",
    "none current": "no current version",
    "overlap": "a version still holds when the next one begins",
    "gap": "a version ends before the next one begins",
    "ends before start": "a version does not end after it begins",
    "flag": "the flag of the current version and the end of the version contradict each other",
}


@dataclass(frozen=True)
class Fault:
    """One fault in the versions of a key.

    Attributes:
        kind: one of FAULTS.
        key: value by column.
        text: what was found, in words.
    """

    table: str
    kind: str
    key: Mapping[str, Any]
    text: str

    @property
    def key_text(self) -> str:
        """Return the key as text."""
        return ", ".join(str(value) for value in self.key.values())


def find_faults(tables: Warehouse, versions: Versions, among: str | None = None) -> list[Fault]:
    """Return the faults of a table of versions, by kind and key.

    Args:
        among: a relation that holds the keys to look at; all when None.
    """
    found: list[Fault] = []
    for kind, query in _queries(tables, versions, among).items():
        for row in tables.rows(query):
            key = {column: row[column.lower()] for column in versions.key}
            found.append(Fault(versions.name, kind, key, _said(kind, row)))
    return found


def is_open(tables: Warehouse, versions: Versions) -> str:
    """Return the condition that a version has no end."""
    ends = tables.column(versions.ends)
    if versions.open_end == "null":
        return f"{ends} is null"
    return f"({ends} is null or {ends} = {versions.open_end})"


def holds_now(tables: Warehouse, versions: Versions) -> str:
    """Return the condition that a version claims to be the current one: by its flag, or by having no end."""
    without_end = is_open(tables, versions)
    if versions.current is None:
        return without_end
    return f"(coalesce({tables.column(versions.current)}, false) or {without_end})"


def key_list(tables: Warehouse, versions: Versions, of: str = "") -> str:
    """Return the key's columns for a select, of a table with an alias."""
    return ", ".join(f"{of}{tables.column(column)}" for column in versions.key)


def same_key(tables: Warehouse, versions: Versions, one: str, other: str) -> str:
    """Return the condition that two tables with aliases have the same key."""
    names = [tables.column(column) for column in versions.key]
    return " and ".join(f"{one}.{name} = {other}.{name}" for name in names)


def _queries(tables: Warehouse, versions: Versions, among: str | None) -> dict[str, str]:
    keys = key_list(tables, versions)
    begins, ends = tables.column(versions.begins), tables.column(versions.ends)
    without_end, current = is_open(tables, versions), holds_now(tables, versions)
    conditions = [] if versions.superseded is None else [f"not coalesce({tables.column(versions.superseded)}, false)"]
    if among:
        conditions.append(f"exists (select 1 from {among} as o where {same_key(tables, versions, 'o', 'v')})")
    live = f"select * from {versions.relation} as v where {' and '.join(conditions) or '1 = 1'}"
    counted = (
        f"select {keys}, sum(case when {current} then 1 else 0 end) as versions from ({live}) as l group by {keys}"
    )
    following = (
        f"select {keys}, {begins} as begins, {ends} as ends, {without_end} as has_no_end, "
        f"lead({begins}) over (partition by {keys} order by {begins}, case when {without_end} then 1 else 0 end) "
        f"as next_begins from ({live}) as l"
    )
    queries = {"duplicate": f"select * from ({counted}) as c where versions > 1 order by {keys}"}
    if not versions.may_end:
        queries["none current"] = f"select * from ({counted}) as c where versions = 0 order by {keys}"
    queries["overlap"] = (
        f"select * from ({following}) as f where next_begins is not null and (has_no_end or ends > next_begins) "
        f"order by {keys}, begins"
    )
    if not versions.may_end:
        queries["gap"] = (
            f"select * from ({following}) as f where not has_no_end and ends < next_begins order by {keys}, begins"
        )
    queries["ends before start"] = (
        f"select * from ({following}) as f where begins is null or (not has_no_end and ends <= begins) order by {keys}"
    )
    if versions.current is not None:
        flag = f"coalesce({tables.column(versions.current)}, false)"
        # Without the alias of `live`, which covers only versions that hold at some time.
        queries["flag"] = (
            f"select {keys}, {begins} as begins, {ends} as ends from ({live}) as l "
            f"where ({flag} and not {without_end}) or (not {flag} and {without_end}) order by {keys}"
        )
    return queries


def _said(kind: str, row: Mapping[str, Any]) -> str:
    if kind == "duplicate":
        return f"{int(row['versions'])} current versions"
    if kind == "none current":
        return "no current version"
    if kind == "flag":
        return f"the version from {row['begins']} ends {row['ends'] or 'never'}, and its flag says otherwise"
    if kind == "ends before start":
        return f"the version from {row['begins'] or 'nowhere'} ends {row['ends'] or 'never'}"
    return f"the version from {row['begins']} ends {row['ends'] or 'never'}, the next begins {row['next_begins']}"
