"""Read a manifest.json, once for all who ask while it stays as it is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson

from flows.engine.artifacts.compiled import Compiled, compiled_in
from flows.engine.artifacts.manifest import (
    DATA_TYPES,
    PERSONAL,
    TEST_TYPES,
    Batches,
    Manifest,
    Node,
    Snapshot,
    SwitchedOff,
)
from flows.engine.context.events import name_of
from infrastructure.commands import command
from infrastructure.errors import ConfigError

MANIFEST = "manifest.json"
CRITICAL = "critical"
# What people write for yes in YAML. dbt keeps it as text where it is quoted, and dbt 2 where it is not `true`.
CRITICAL_WORDS = tuple(form for word in ("true", "yes", "on") for form in (word, word.title(), word.upper()))
_NOT_CRITICAL = frozenset({"", "false", "no", "off", "n", "0", "none", "null"})
_SECTIONS = ("nodes", "sources", "exposures", "unit_tests", "functions", "saved_queries")
# What a file that is no manifest makes of the reading of one.
WRONG = (ValueError, LookupError, AttributeError, TypeError)

_Entry = Mapping[str, Any]
# The one that was read last, by its file: what a run asks time and again, in the order of 1 kB a node.
_last: dict[tuple[str, int, int, int], Manifest] = {}


class WholeManifest(NamedTuple):
    """All that dbt wrote, which takes ten times the memory of a `Manifest`: to be looked at and let go."""

    content: bytes
    document: _Entry
    manifest: Manifest

    @property
    def compiled(self) -> dict[str, Compiled]:
        """Return the SQL of its nodes by unique id."""
        return compiled_in(self.document)

    @property
    def invocation_id(self) -> str | None:
        """Return the dbt command that wrote it."""
        return (self.document.get("metadata") or {}).get("invocation_id")


def load_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        ConfigError: the file is missing or is no manifest.
    """
    try:
        key = _key(path)
        found = _last.get(key) or manifest_of(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"There is no manifest at {path}. Run the project once: {command('run')}") from exc
    except WRONG as exc:
        raise ConfigError(f"{path} is not a dbt manifest. Delete it and run again.") from exc
    _keep(key, found)
    return found


def read_whole(path: Path) -> WholeManifest | None:
    """Read all that a manifest holds; None where there is none that can be read."""
    try:
        key, content = _key(path), path.read_bytes()
        document = cast(_Entry, orjson.loads(content))
        found = _last.get(key) or manifest_of(document)
        _keep(key, found)
        return WholeManifest(content, document, found)
    except (OSError, *WRONG):
        return None


def selectable_names(path: Path) -> tuple[list[str], list[str]]:
    """Return what a selection can name: nodes, tags and sources, and apart from them tests.

    Raises:
        OSError: there is no manifest.
    """
    document = cast(_Entry, orjson.loads(path.read_bytes()))
    entries = [entry for section in ("nodes", "unit_tests") for entry in document.get(section, {}).values()]
    others = [entry for entry in entries if entry["resource_type"] not in TEST_TYPES]
    sources = document.get("sources", {}).values()
    words = {entry["name"] for entry in others}
    words |= {f"tag:{tag}" for entry in (*others, *sources) for tag in texts_in(entry.get("tags"))}
    words |= {f"source:{source['source_name']}" for source in sources}
    words |= {f"source:{source['source_name']}.{source['name']}" for source in sources}
    return sorted(words), sorted({entry["name"] for entry in entries} - words)


def mixed_manifest(content: bytes, stale: Iterable[str], earlier: Path | None) -> bytes:
    """Return a manifest in which some nodes are as in that of an earlier folder; one that is not there is left out."""
    document = cast(dict[str, Any], orjson.loads(content))
    whole: _Entry = {}
    if earlier:
        with suppress(OSError, ValueError):
            whole = cast(_Entry, orjson.loads((earlier / MANIFEST).read_bytes()))
    for section in ("nodes", "unit_tests", "functions"):
        entries = cast(dict[str, Any], document.get(section) or {})
        before: _Entry = whole.get(section) or {}
        for key in entries.keys() & set(stale):
            if key in before:
                entries[key] = before[key]
            else:
                del entries[key]
    return orjson.dumps(document)


def _key(path: Path) -> tuple[str, int, int, int]:
    there = os.stat(path)
    return str(path), there.st_ino, there.st_mtime_ns, there.st_size


def _keep(key: tuple[str, int, int, int], found: Manifest) -> None:
    _last.clear()
    _last[key] = found


def manifest_of(manifest: bytes | _Entry) -> Manifest:
    """Return what a manifest says; raises one of `WRONG` where it is none."""
    document = cast(_Entry, orjson.loads(manifest)) if isinstance(manifest, bytes) else manifest
    metadata: _Entry = document.get("metadata") or {}
    groups = {group["name"]: _names(group.get("owner")) for group in (document.get("groups") or {}).values()}
    entries = {key: entry for section in _SECTIONS for key, entry in (document.get(section) or {}).items()}
    nodes = {key: _node(key, entry, groups) for key, entry in entries.items()}
    off = [entry for same in (document.get("disabled") or {}).values() for entry in same]
    return Manifest(
        _in_build_order(nodes),
        str(metadata.get("project_name") or ""),
        str(metadata.get("adapter_type") or ""),
        str(metadata.get("dbt_version") or ""),
        tuple(_switched_off(entry) for entry in off if entry.get("resource_type") in TEST_TYPES),
    )


def meta_of(entry: _Entry) -> _Entry:
    """Return the meta of a manifest's entry: that of its config, and what stands beside the config."""
    own, configured = entry.get("meta") or {}, (entry.get("config") or {}).get("meta") or {}
    return {**own, **configured} if own and configured else own or configured


def is_critical(entry: _Entry) -> bool:
    """Say whether the owner of a manifest's entry marked it so: `meta: {critical: true}`, or the tag critical.

    What is not clearly a no counts as a yes, so that a mistyped mark still counts.
    """
    return _is_critical(meta_of(entry), texts_in(entry.get("tags")), (entry.get("config") or {}).get("tags"))


def _is_critical(meta: _Entry, tags: tuple[str, ...], more_tags: object) -> bool:
    mark = meta.get(CRITICAL)
    is_marked = mark is not None and str(mark).strip().lower() not in _NOT_CRITICAL
    return is_marked or CRITICAL in tags or CRITICAL in texts_in(more_tags)


def _in_build_order(nodes: dict[str, Node]) -> dict[str, Node]:
    """Put unit tests where `dbt build` has them: before the model that they are about, and after what it reads."""
    ordered = dict(nodes)
    for node in nodes.values():
        if node.resource_type == "unit_test":
            for tested in (unique_id for unique_id in node.depends_on if unique_id in nodes):
                model = ordered[tested]
                ordered[node.unique_id] = node._replace(depends_on=nodes[tested].depends_on, tests=(tested,))
                ordered[tested] = model._replace(depends_on=(*model.depends_on, node.unique_id))
    return ordered


def _node(unique_id: str, entry: _Entry, groups: Mapping[str, tuple[str, ...]]) -> Node:
    kind = entry["resource_type"]
    config: _Entry = entry.get("config") or {}
    about: _Entry = entry.get("test_metadata") or {}
    columns: _Entry = entry.get("columns") or {}
    depends_on = tuple((entry.get("depends_on") or {}).get("nodes") or ())
    where = str(config.get("where") or "")
    meta = meta_of(entry)
    tags = texts_in(entry.get("tags"))
    group = str(config.get("group") or entry.get("group") or "")
    return Node(
        unique_id=unique_id,
        name=name_of(unique_id, entry["name"]),
        resource_type=kind,
        materialized=config.get("materialized") or "",
        fqn=".".join(entry.get("fqn") or ()),
        depends_on=depends_on,
        tests=depends_on if kind == "test" else (),
        attached_to=str(entry.get("attached_node") or ""),
        path=entry.get("original_file_path") or "",
        properties_path=entry.get("patch_path") or entry.get("original_file_path") or "",
        relation=entry.get("relation_name"),
        database=str(entry.get("database") or ""),
        schema=str(entry.get("schema") or ""),
        tags=tags,
        meta=meta,
        owners=_names(meta.get("owner")) + groups.get(group, ()) + _names(entry.get("owner")),
        is_critical=_is_critical(meta, tags, config.get("tags")),
        severity=str(config.get("severity") or "").lower(),
        where=where,
        stores_failures=bool(config.get("store_failures")),
        has_freshness=kind == "source" and _is_checked(entry, config),
        kind=str(about.get("name") or ""),
        column=str(entry.get("column_name") or ""),
        unique_columns=_unique_columns(about) if about and not where else (),
        columns=frozenset(map(str.lower, columns)),
        personal_columns=frozenset(name.lower() for name in columns if meta_of(columns[name]).get(PERSONAL)),
        label=str(entry.get("label") or entry["name"]),
        snapshot=_snapshot(config) if kind == "snapshot" else None,
        batches=_batches(config),
        lets_go_on=config.get("on_error") == "continue",
        loader=str(entry.get("loader") or ""),
        description=str(entry.get("description") or "") if kind in DATA_TYPES or kind == "source" else "",
    )


def _is_checked(source: _Entry, config: _Entry) -> bool:
    limits = source.get("freshness") or config.get("freshness") or {}
    return any((limits.get(limit) or {}).get("count") is not None for limit in ("warn_after", "error_after"))


def _unique_columns(about: _Entry) -> tuple[str, ...]:
    arguments: _Entry = about.get("kwargs") or {}
    if about["name"] == "unique":
        return texts_in(arguments.get("column_name"))
    if about["name"].startswith("unique_combination"):
        return texts_in(arguments.get("columns") or arguments.get("combination_of_columns"))
    return ()


def _batches(config: _Entry) -> Batches | None:
    if config.get("incremental_strategy") != "microbatch" or not config.get("batch_size"):
        return None
    return Batches(
        str(config["batch_size"]),
        int(config.get("lookback") or 0),
        str(config.get("begin") or ""),
        config.get("full_refresh"),
    )


def _snapshot(config: _Entry) -> Snapshot:
    return Snapshot(
        key=texts_in(config.get("unique_key")),
        names=config.get("snapshot_meta_column_names") or {},
        open_end=str(config.get("dbt_valid_to_current") or "null"),
        may_end=config.get("hard_deletes") == "invalidate" or bool(config.get("invalidate_hard_deletes")),
    )


def _switched_off(entry: _Entry) -> SwitchedOff:
    named = {str(ref.get("name")) for ref in entry.get("refs") or ()} | {str(entry.get("model"))}
    named.add(str(entry.get("attached_node") or "").rpartition(".")[2])
    sources = {".".join(map(str, source)) for source in entry.get("sources") or ()}
    return SwitchedOff(str(entry["name"]), frozenset(named), frozenset(sources))


def texts_in(named: object) -> tuple[str, ...]:
    """Return what people write as one name or as several."""
    if not named:
        return ()
    return (named,) if isinstance(named, str) else tuple(map(str, cast(Iterable[object], named)))


def _names(owner: object) -> tuple[str, ...]:
    """Return the names in what people write as an owner: a name, several, or a name with an e-mail address."""
    if not owner:
        return ()
    if isinstance(owner, str):
        return (owner,) if owner.strip() else ()
    if isinstance(owner, list):
        return tuple(name for entry in cast(list[Any], owner) for name in _names(entry))
    if isinstance(owner, dict):
        entry = cast(dict[str, Any], owner)
        return _names(entry.get("name") or entry.get("email"))
    return ()
