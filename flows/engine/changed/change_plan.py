"""Find out what changed since the last good state of a target, and make it the command that builds just that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flows.engine.artifacts.fingerprints import Inputs
from flows.engine.artifacts.manifest_file import manifest_of
from flows.engine.changed.decide import Decision, Found, decide, reusable, summary_of
from flows.engine.changed.freshness import ask_for_source_data
from flows.engine.changed.last_success import LastSuccess
from flows.engine.changed.parse_inputs import is_narrowed
from flows.engine.changed.relations import missing_relations
from flows.engine.changed.run_memory import RunMemory
from flows.engine.context.command import DbtCommand, flags_in, only_these
from flows.engine.context.project import Project
from flows.engine.process.listing import list_manifest
from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from infrastructure.profiles import Profile


@dataclass(frozen=True)
class ChangePlan:
    """What a run with `--changed` does.

    Attributes:
        command: builds what has to be built; None when that is nothing.
        decisions: one per node that was asked for, parents first.
        notes: what a person should know.
    """

    command: DbtCommand | None
    decisions: tuple[Decision, ...]
    inputs: Inputs
    notes: tuple[str, ...]


def plan_changes(memory: RunMemory, project: Project, profile: Profile, check_sources: bool = True) -> ChangePlan:
    """Compare project and warehouse with the last good state; nothing is built.

    Args:
        check_sources: ask dbt for the sources' freshness where this run did not already.

    Raises:
        ConfigError: the project or the selection is wrong.
        DbtRunFailed: the project does not compile.
    """
    command = memory.command
    notes: list[str] = []
    try:
        last = memory.last
    except ConfigError as exc:
        notes.append(f"{exc} Everything is built.")
        memory.forget()
        last = memory.last
    modified: frozenset[str] = frozenset()
    if memory.is_proven():
        inputs = last.inputs
    else:
        modified, inputs = _parse(memory, last, project, profile, notes)
    chosen = _chosen(command, inputs, project, profile)
    built = memory.known(inputs)
    # dbt compares with the manifest that was written last, and knows nothing of a run that was cut off since.
    built_since = {unique_id for unique_id, known in built.items() if known.run not in last.runs}
    found = Found(
        inputs=inputs,
        chosen=chosen,
        built=built,
        modified=modified - built_since,
        full_refresh=command.full_refresh or "--full-refresh" in flags_in(os.environ),
        old_settings=last.inputs.settings,
        reworded=memory.in_other_words(inputs, built, chosen),
    )
    if check_sources and not memory.has_checked and _reads_sources(found):
        manifest = manifest_of(memory.parsed[1]) if memory.parsed else None
        memory.sources = ask_for_source_data(command, project, profile, manifest, chosen)
    found = replace(found, sources=memory.sources)
    kept = reusable(found)
    gone = missing_relations([inputs.nodes[unique_id].place for unique_id in kept], project, profile)
    found = replace(found, missing=frozenset(key for key in kept if inputs.nodes[key].place in gone))
    decisions = decide(found)
    # What a selection that matches nothing means is decided where it was asked for.
    notes += [summary_of(decisions, inputs)] if decisions else []
    warned = [
        inputs.nodes[d.unique_id].name
        for d in decisions
        if not d.is_built and found.built[d.unique_id].status == "warn"
    ]
    if warned:
        again = f"Not run again, and warned when run last: {count_of(len(warned), 'test')}"
        notes.append(f"{again} ({', '.join(warned[:5])}).")
    return ChangePlan(_command(command, decisions), tuple(decisions), inputs, tuple(notes))


def _parse(
    memory: RunMemory, last: LastSuccess, project: Project, profile: Profile, notes: list[str]
) -> tuple[frozenset[str], Inputs]:
    """Have dbt parse the project, and say at the same time what it calls modified."""
    modified: frozenset[str] = frozenset()
    ask = DbtCommand("ls", vars=memory.command.vars)
    if last.folder is None:
        _, content = list_manifest(ask, project, profile)
    else:
        try:
            # A test is due with its model, and not for words in which the model is written otherwise.
            flags = ("--state", str(last.folder), "--indirect-selection", "empty")
            compare = replace(ask, select="state:modified", flags=flags)
            ids, content = list_manifest(compare, project, profile)
            modified = frozenset(ids)
        except DbtRunFailed:
            # The project may be at fault, which this says; or the old manifest, which our own comparison does without.
            _, content = list_manifest(ask, project, profile)
            notes.append("dbt could not compare with its last manifest; changes are found by fingerprints alone.")
    inputs = memory.inputs_of(content)
    memory.parsed = (inputs, content)
    return modified, inputs


def _chosen(command: DbtCommand, inputs: Inputs, project: Project, profile: Profile) -> frozenset[str]:
    if not is_narrowed(command, project):
        return frozenset(inputs.nodes)
    return frozenset(list_manifest(command, project, profile)[0]) & inputs.nodes.keys()


def _reads_sources(found: Found) -> bool:
    return any(
        parent in found.inputs.sources for unique_id in found.chosen for parent in found.inputs.nodes[unique_id].parents
    )


def _command(command: DbtCommand, decisions: Sequence[Decision]) -> DbtCommand | None:
    built = [decision.unique_id for decision in decisions if decision.is_built]
    if built and len(built) == len(decisions):
        return command
    return only_these(command, built)
