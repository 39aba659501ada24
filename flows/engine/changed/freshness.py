"""Select the sources to check before a build: those with a freshness that it depends on, according to dbt."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import orjson

from flows.engine.artifacts.artifacts import SOURCES, Artifacts, ages_in, results_file
from flows.engine.artifacts.fingerprints import digest_of
from flows.engine.artifacts.manifest import Manifest
from flows.engine.changed.parse_inputs import is_narrowed
from flows.engine.changed.run_memory import RunMemory, memory_for_plan
from flows.engine.changed.source_data import newest_rows
from flows.engine.context.command import DbtCommand
from flows.engine.context.events import DbtEvent
from flows.engine.context.project import Project
from flows.engine.context.state import State
from flows.engine.ledger.undone import is_run_by
from flows.engine.process.door import Dbt
from flows.engine.process.listing import list_nodes
from infrastructure.errors import ConfigError
from infrastructure.private_files import write_whole
from infrastructure.program import find_program

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

_FILE = "freshness.json"
# `dbt source freshness` takes no list of nodes, only a selection: a source with another name can't be told apart.
_SELECTABLE = re.compile(r"source(\.[\w-]+){3}")
# Whose meaning changes while the project stays as it is.
_BY_STATE = re.compile(r"\b(state|result|source_status)\b")


@dataclass
class _Known:
    """What is known of a project's sources for as long as its files stay as they are.

    Attributes:
        declared: see `Surroundings`; of the moment at which `has_any` was seen.
        has_any: whether any source has a freshness; None where that is unknown.
        proof: see `Surroundings`; of the moment of the answers.
        answers: unique ids of the sources behind a selection.
    """

    declared: str = ""
    has_any: bool | None = None
    proof: str = ""
    answers: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


def sources_to_check(command: DbtCommand, project: Project, profile: Profile) -> tuple[str, ...] | None:
    """Return a selection of the sources with a freshness that a command's nodes depend on.

    None stands for all: the command runs everything, or they can't be told apart. Where there are none it is empty.

    Raises:
        ConfigError: the project or the selection is wrong.
        DbtRunFailed: the project does not compile.
    """
    memory = memory_for_plan(command, project, profile)
    around = memory.surroundings
    known = _read(memory.state)
    if known.declared != around.declared or not around.declared:
        known.has_any = _seen_by_the_last_run(memory)
    if known.proof != around.proof or not around.proof:
        known.answers = {}
    known.declared, known.proof = around.declared, around.proof
    if known.has_any is False:
        _write(memory.state, known)
        return ()
    # A dbt that checks no freshness may not be started for it, unless a source has one: that one it says no to.
    if not is_narrowed(command, project) and find_program(profile.dbt).has_freshness:
        return None
    asked = digest_of(command.select, command.exclude, command.selector, command.flags, dict(command.vars))
    sources = known.answers.get(asked)
    if sources is None:
        chosen, manifest = list_nodes(command, project, profile)
        known.has_any = any(node.has_freshness for node in manifest.nodes.values())
        # dbt lists sources and exposures too, which nothing builds.
        sources = manifest.checked_sources(key for key in chosen if is_run_by("build", key, manifest))
        if not _BY_STATE.search(f"{command.select} {command.exclude}") and not command.selector:
            known.answers[asked] = sources
        _write(memory.state, known)
    return selection_of(sources)


def may_check(state: State) -> bool:
    """Guess, for what is got ready ahead of time, whether a run will check sources."""
    return _read(state).has_any is not False


def selection_of(sources: Collection[str]) -> tuple[str, ...] | None:
    """Return the words that select these sources; None where dbt has none for one of them."""
    if not all(_SELECTABLE.fullmatch(unique_id) for unique_id in sources):
        return None
    return tuple(unique_id.replace("source.", "source:", 1) for unique_id in sources)


def ask_for_source_data(
    command: DbtCommand,
    project: Project,
    profile: Profile,
    manifest: Manifest | None = None,
    chosen: Iterable[str] = (),
) -> dict[str, str]:
    """Check the sources behind a command; return max_loaded_at by unique id, without those dbt says nothing of.

    A source that is too old, or whose table is missing, is no error here.

    Args:
        manifest: of a parse that was just made, with the nodes of it that the command runs.
    """
    words = selection_of(manifest.checked_sources(chosen)) if manifest else sources_to_check(command, project, profile)
    if words == ():
        return {}
    check = DbtCommand("source freshness", select=" ".join(words) if words else None, vars=command.vars)

    def ignore(event: DbtEvent) -> None: ...

    answer = Dbt(project, profile).ask(check, ignore, failing_is_an_answer=True, artifact=SOURCES)
    return newest_rows(ages_in(results_file(answer or b"")))


def _seen_by_the_last_run(memory: RunMemory) -> bool | None:
    try:
        if not memory.is_proven() or memory.last.folder is None:
            return None
        nodes = Artifacts(memory.last.folder).manifest.nodes.values()
    except ConfigError:
        return None
    return any(node.has_freshness for node in nodes)


def _read(state: State) -> _Known:
    try:
        return _Known(**cast(dict[str, Any], orjson.loads((state.folder / _FILE).read_bytes())))
    except (OSError, ValueError, TypeError):
        return _Known()


def _write(state: State, known: _Known) -> None:
    # Without it the next run asks dbt again.
    try:
        write_whole(state.folder / _FILE, orjson.dumps(known))
    except OSError:
        return
