"""What a project says of its nodes for people to read: descriptions, columns, and the SQL that was compiled last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson

from flows.engine.artifacts.artifacts import CATALOG
from flows.engine.artifacts.manifest_file import MANIFEST, WRONG

_Entry = Mapping[str, Any]
_COMPILED = "compiled"


class Column(NamedTuple):
    """A column as the project describes it; its type is empty where neither the project nor a catalog has it."""

    name: str
    kind: str
    description: str


class Description(NamedTuple):
    """What people read of a node.

    Attributes:
        sql: as dbt compiled it last; empty where there is none.
    """

    text: str
    columns: tuple[Column, ...]
    sql: str


def read_descriptions(folders: Iterable[Path]) -> dict[str, Description]:
    """Return the description of each model, seed, snapshot and source, by unique id; empty where none can be read.

    Args:
        folders: with artifacts of dbt; the first one that has a node counts, and later ones add SQL that it lacks.
    """
    found: dict[str, Description] = {}
    for folder in folders:
        for unique_id, here in _read(folder).items():
            before = found.get(unique_id)
            found[unique_id] = before._replace(sql=before.sql or here.sql) if before else here
    return found


def _read(folder: Path) -> dict[str, Description]:
    try:
        document = cast(_Entry, orjson.loads((folder / MANIFEST).read_bytes()))
        kinds: _Entry = {}
        # Only `dbt docs generate` writes a catalog.
        with suppress(OSError, *WRONG):
            catalog = cast(_Entry, orjson.loads((folder / CATALOG).read_bytes()))
            kinds = {**(catalog.get("nodes") or {}), **(catalog.get("sources") or {})}
        entries = {**(document.get("nodes") or {}), **(document.get("sources") or {})}
        return {
            unique_id: _description(entry, kinds.get(unique_id) or {}, folder)
            for unique_id, entry in entries.items()
            if entry["resource_type"] in ("model", "seed", "snapshot", "source")
        }
    except (OSError, *WRONG):
        return {}


def _description(entry: _Entry, catalog: _Entry, folder: Path) -> Description:
    described: dict[str, _Entry] = {name.lower(): column for name, column in (entry.get("columns") or {}).items()}
    built: dict[str, _Entry] = {name.lower(): column for name, column in (catalog.get("columns") or {}).items()}
    columns = (
        Column(
            str((described.get(name) or built[name]).get("name") or name),
            str((built.get(name) or {}).get("type") or (described.get(name) or {}).get("data_type") or ""),
            str((described.get(name) or {}).get("description") or ""),
        )
        for name in {**described, **built}
    )
    return Description(str(entry.get("description") or ""), tuple(columns), _sql(entry, folder))


def _sql(entry: _Entry, folder: Path) -> str:
    """Return the SQL of the last command that compiled a node: that of an earlier command is in a file alone."""
    if entry["resource_type"] not in ("model", "snapshot"):
        return ""
    if compiled := str(entry.get("compiled_code") or "").strip():
        return compiled
    home = (folder / _COMPILED).resolve()
    path = home / str(entry.get("package_name") or "") / str(entry.get("original_file_path") or "")
    with suppress(OSError, ValueError):
        if path.resolve().is_relative_to(home) and path.is_file():
            return path.read_text(encoding="utf-8").strip()
    return ""
