"""Find what changed upstream of a failing test since it last passed: code, settings, rebuilds and source data.

The engine keeps a few last good states; the one in which a test still passed would soon be gone. So triage keeps a copy
of it from its first look at the test until the test passes again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import orjson

from flows.engine.artifacts.fingerprints import TEST_TYPES
from flows.engine.artifacts.manifest import reach
from flows.engine.changed.decide import difference
from flows.engine.changed.last_success import GOOD, LastSuccess, latest_folder, read_folder, read_last_good
from flows.engine.context.state import State
from infrastructure.commands import command
from infrastructure.errors import ConfigError
from infrastructure.private_files import private_folder, write_whole

_FOLDER, _INDEX, _NODES = "triage", "passed.json", "nodes.json"


@dataclass(frozen=True)
class Changes:
    """The changes upstream of a test.

    Attributes:
        passed_at: when the test last passed, ISO 8601; None where that is unknown, as it was too long ago.
        nodes: a sentence per node or source that changed, nearest to the sources first.
    """

    passed_at: str | None
    nodes: tuple[str, ...]


def failing_tests(last: LastSuccess | None) -> list[str]:
    """Return the unique ids of tests whose last result was not a pass."""
    if last is None:
        return []
    return [
        unique_id
        for unique_id, node in last.inputs.nodes.items()
        if node.resource_type in TEST_TYPES
        and (built := last.built.get(unique_id)) is not None
        and built.status not in (*GOOD, "skipped")
    ]


def keep_passes(state: State, failing: Iterable[str]) -> dict[str, LastSuccess]:
    """Return the newest known state in which each failing test passed, and keep those states.

    Tests that pass again are forgotten.
    """
    folder = state.folder / _FOLDER
    index = _read_index(folder)
    latest = latest_folder(state)
    there = sorted((p for p in latest.parent.iterdir() if p.name.isdigit()), reverse=True) if latest else []
    states: dict[str, LastSuccess] = {}
    kept: dict[str, str] = {}
    for test in failing:
        place = next((path for path in there if _passed(states, path, test)), None)
        if place is None and test in index and _passed(states, folder / index[test], test):
            place = folder / index[test]
        if place is None:
            continue
        kept[test] = place.name
        if place.parent != folder and not (folder / place.name).exists():
            private_folder(folder / place.name)
            shutil.copy(place / _NODES, folder / place.name / _NODES)
    if folder.is_dir() or kept:
        private_folder(folder)
        write_whole(folder / _INDEX, orjson.dumps(kept))
        for old in folder.iterdir():
            if old.is_dir() and old.name not in kept.values():
                shutil.rmtree(old, ignore_errors=True)
    return {test: states[name] for test, name in kept.items()}


def changes_since(passed: LastSuccess | None, last: LastSuccess, test: str) -> Changes:
    """Return what changed upstream of a test since a state in which it passed."""
    if passed is None:
        return Changes(None, ())
    found: list[str] = []
    upstream = set(_upstream(last, test))
    for unique_id, node in last.inputs.nodes.items():
        if unique_id not in upstream:
            continue
        then, now = passed.built.get(unique_id), last.built.get(unique_id)
        before = passed.inputs.nodes.get(unique_id)
        if before is None:
            found.append(f"{node.resource_type} {node.name} is new")
            continue
        said = difference(before.parts, node.parts, node.resource_type == "seed")
        if unique_id == test:
            found += [f"the test itself: {said}"] if said else []
            continue
        rebuilt = now is not None and (then is None or now.run != then.run)
        if said or rebuilt:
            when = f"built again at {now.at[:16].replace('T', ' ')} UTC" if now and rebuilt else ""
            found.append(f"{node.resource_type} {node.name}: {'; '.join(part for part in (said, when) if part)}")
        for parent, name in last.inputs.sources.items():
            new = now.parents.get(parent) if now else None
            if parent in node.parents and new and (then is None or then.parents.get(parent) != new):
                found.append(f"source {name} has newer data, of {new[:16].replace('T', ' ')} UTC")
    passed_at = passed.built[test].at if test in passed.built else None
    return Changes(passed_at, tuple(dict.fromkeys(found)))


def last_state(state: State) -> LastSuccess:
    """Return the last state of a target.

    Raises:
        ConfigError: nothing has been run here yet, or the state can't be read.
    """
    last = read_last_good(state)
    if last is None:
        raise ConfigError(f"Nothing has been run yet: {state.folder} has no state. Run it once: {command('run')}")
    return last


def _passed(states: dict[str, LastSuccess], path: Path, test: str) -> bool:
    if path.name not in states:
        try:
            states[path.name] = read_folder(path)
        except ConfigError:
            states[path.name] = LastSuccess()
    built = states[path.name].built.get(test)
    return built is not None and built.is_good


def _upstream(last: LastSuccess, test: str) -> list[str]:
    return reach([test], lambda key: last.inputs.nodes[key].parents if key in last.inputs.nodes else ())


def _read_index(folder: Path) -> Mapping[str, str]:
    try:
        return cast(dict[str, str], orjson.loads((folder / _INDEX).read_bytes()))
    except (OSError, ValueError):
        return {}
