"""Write down what a run left in the warehouse, so that a later one knows what it need not build again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.engine.artifacts.artifacts import RUN_RESULTS, SOURCES, Details, carried_over
from flows.engine.artifacts.fingerprints import Inputs, Parts, digest_of
from flows.engine.artifacts.manifest_file import MANIFEST, mixed_manifest, read_whole
from flows.engine.artifacts.manifest_fingerprints import inputs_of
from flows.engine.artifacts.results import NodeResult
from flows.engine.artifacts.reworded import reworded
from flows.engine.changed.last_success import (
    GOOD,
    INTERRUPTED,
    PARTIAL,
    Built,
    LastSuccess,
    read_last_good,
    write_last_good,
)
from flows.engine.changed.parse_inputs import Surroundings, surroundings_of
from flows.engine.changed.source_data import keep_source_data, kept_source_data
from flows.engine.context.command import DbtCommand, flags_in, is_on_a_part
from flows.engine.context.events import REUSED, STARTED
from flows.engine.context.project import Project
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import LEDGER, State, dbt_log, state_of
from flows.engine.ledger.ledger import node_events, read_ledger, taken_back
from flows.engine.ledger.resume import logged_events
from infrastructure.errors import ConfigError

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

_REMEMBERED = frozenset({"build", "run", "seed", "snapshot", "test", "clone"})


@dataclass(frozen=True)
class Done:
    """What one run did.

    Attributes:
        ended: status and end of every node that it started, by unique id; "interrupted" for one that did not end.
        sources: max_loaded_at of the sources, from before the run.
    """

    run: str
    ended: Mapping[str, tuple[str, str]]
    sources: Mapping[str, str] = field(default_factory=dict[str, str])


def after(last: LastSuccess, inputs: Inputs | None, done: Done) -> dict[str, Built]:
    """Return how every node was built last, once a run is counted in.

    Args:
        inputs: what the nodes of that run were made from; None where that is no longer known.
    """
    built = dict(last.built)
    settings = settings_digest(inputs) if inputs else ""
    good = {unique_id for unique_id, (status, _) in done.ended.items() if status in GOOD}
    for unique_id, (status, at) in done.ended.items():
        if status == REUSED:
            # dbt left it as it was: what is known of it still holds, and what is not known is built once.
            continue
        node = inputs.nodes.get(unique_id) if inputs else None
        earlier = last.built.get(unique_id)
        if node is not None and status in GOOD:
            parents = {
                parent: done.sources.get(parent)
                if parent in inputs.sources  # type: ignore[union-attr]
                else done.run
                if parent in good
                else version_of(last.built.get(parent))
                for parent in node.parents
            }
            built[unique_id] = Built(status, at, done.run, node.parts, parents, settings)
        else:
            known = earlier or Built(status, at, done.run, None, {}, "")
            built[unique_id] = replace(known, status=INTERRUPTED if status in GOOD else status, at=at, run=done.run)
    return built


def _differs_in_code_alone(then: Parts, now: Parts) -> bool:
    return then != now and replace(then, code=now.code) == now


def version_of(built: Built | None) -> str | None:
    """Return which run a node's content is from; None where that is not known."""
    return built.run if built and built.is_good else None


def settings_digest(inputs: Inputs) -> str:
    """Return one fingerprint of what concerns every node."""
    return digest_of(dict(inputs.settings))


def memory_for_plan(command: DbtCommand, project: Project, profile: Profile) -> RunMemory:
    """Return what is known of a target, for a plan that is not carried out."""
    return RunMemory(state_of(project, profile.target, os.environ), command, project, profile, "", "")


class RunMemory:
    """What is known before a run, and what is to be known after it."""

    def __init__(
        self, state: State, command: DbtCommand, project: Project, profile: Profile, run: str, run_id: str
    ) -> None:
        self.state = state
        self.command = command
        self._project = project
        self._profile = profile
        self._run = run
        self._run_id = run_id
        self.is_kept = command.verb in _REMEMBERED
        checked = kept_source_data(state, run_id) if self.is_kept else None
        # Whether a freshness check went before in this very run, and max_loaded_at by source.
        self.has_checked = checked is not None
        self.sources = checked or {}
        # What a question to dbt already parsed, when the run itself does not.
        self.parsed: tuple[Inputs, bytes] | None = None
        # Nodes that are used again though their code is written in other words.
        self.reworded: frozenset[str] = frozenset()

    @cached_property
    def surroundings(self) -> Surroundings:
        """Return what this run's parse depends on, as it was at first sight."""
        return surroundings_of(self.command, self._project, self._profile)

    @cached_property
    def last(self) -> LastSuccess:
        """Return what the last run wrote down.

        Raises:
            ConfigError: the state can't be read.
        """
        return read_last_good(self.state) or LastSuccess()

    def built_before(self) -> set[str]:
        """Return the unique ids of what has ever been built well; empty where the state can't be read."""
        try:
            return {unique_id for unique_id, built in self.last.built.items() if built.parts is not None}
        except ConfigError:
            return set()

    def known(self, inputs: Inputs) -> Mapping[str, Built]:
        """Return how every node was built last, the runs counted in that never got to writing it down.

        Args:
            inputs: of the project as it is now; those runs' nodes are good where it was the same then.

        Raises:
            ConfigError: the state can't be read.
        """
        last = self.last
        proof = self.surroundings.proof
        for path in self.state.runs():
            found = _cut_off(path) if path.name not in last.runs and path.name != self._run else None
            if found is not None:
                done, its_proof = found
                last = replace(last, built=after(last, inputs if proof and its_proof == proof else None, done))
        return last.built

    def in_other_words(self, inputs: Inputs, known: Mapping[str, Built], chosen: Iterable[str]) -> frozenset[str]:
        """Find out which of some nodes differ from how they were built in the wording of their code alone.

        Args:
            inputs: of what dbt parsed just now.
            known: how every node was built last.
        """
        if self.parsed is None or self.last.folder is None:
            return self.reworded
        differing = {
            key: built.parts.code
            for key in chosen
            if (built := known.get(key))
            and built.is_good
            and built.parts
            and _differs_in_code_alone(built.parts, inputs.nodes[key].parts)
        }
        then = read_whole(self.last.folder / MANIFEST) if differing else None
        if then is not None:
            self.reworded = reworded(differing, then.document, self.parsed[1], self.surroundings.values)
        return self.reworded

    def forget(self) -> None:
        """Go on as if nothing had ever been built here, for a state that can't be read."""
        self.last = LastSuccess(runs=tuple(path.name for path in self.state.runs()))

    def entry(self) -> dict[str, Any]:
        """Return what the ledger says of this run, for the case that it never gets to its end."""
        return {"proof": self.surroundings.proof, "sources": dict(self.sources)} if self.is_kept else {}

    def inputs_of(self, manifest: bytes | Mapping[str, Any]) -> Inputs:
        """Work out what the nodes of a manifest are made from."""
        inputs = inputs_of(manifest, self.surroundings.values)
        return replace(inputs, settings={**self.surroundings.settings, **inputs.settings})

    def is_proven(self) -> bool:
        """Return whether nothing changed that a parse depends on, so that the last one still stands."""
        proof = self.surroundings.proof
        return bool(proof) and self.last.proof == proof

    def keep(
        self,
        results: Mapping[str, NodeResult],
        started: Iterable[str],
        details: Details,
        invocation_ids: Iterable[str],
    ) -> None:
        """Write down what this run did; a state folder that can't be written is reported, and ends no run.

        Args:
            started: every node that it touched; one without a result was cut off.
            details: dbt's own results by unique id.
        """
        try:
            if self.command.verb == "source freshness":
                keep_source_data(self.state, self._run_id, next(reversed(list(invocation_ids)), None))
            elif self.is_kept:
                self._keep(_ended(results, started, self.command), details, set(invocation_ids))
        except OSError as exc:
            current_reporter().note(
                f"What this run built could not be remembered in {self.state.folder} ({exc.strerror}): "
                "the next run with --changed builds it again."
            )

    def _keep(self, ended: Mapping[str, tuple[str, str]], details: Details, invocation_ids: set[str]) -> None:
        parsed = self._parse(invocation_ids) or self.parsed
        if parsed is None:
            # dbt never got as far as its manifest, so no node was touched; or it was deleted.
            if ended:
                raise FileNotFoundError(2, f"{self.state.target_path / MANIFEST} is not there any more")
            return
        inputs, manifest = parsed
        try:
            last = replace(self.last, built=self.known(inputs))
        except ConfigError as exc:
            current_reporter().note(f"{exc} A new one begins with this run.")
            last = LastSuccess()
        done = Done(self._run, ended, self.sources)
        built = {key: value for key, value in after(last, inputs, done).items() if key in inputs.nodes}
        # What says the same is from now on known by its new words.
        again = {key: built[key] for key in self.reworded & built.keys() - ended.keys()}
        built |= {key: replace(value, parts=inputs.nodes[key].parts) for key, value in again.items()}
        now = surroundings_of(self.command, self._project, self._profile).proof
        runs = (*(path.name for path in self.state.runs()),)
        proof = now if now == self.surroundings.proof else ""
        new = LastSuccess(None, inputs, proof, built, runs)
        write_last_good(self.state, new, self._artifacts(last, new, manifest, details))

    def _parse(self, invocation_ids: set[str]) -> tuple[Inputs, bytes] | None:
        """Return what this run's own parse came to; None when there was none."""
        whole = read_whole(self.state.target_path / MANIFEST)
        if whole is None or whole.invocation_id not in invocation_ids:
            return None
        return self.inputs_of(whole.document), whole.content

    def _artifacts(self, last: LastSuccess, new: LastSuccess, manifest: bytes, details: Details) -> dict[str, bytes]:
        known = new.inputs.nodes
        stale = [
            key
            for key, node in known.items()
            if not ((built := new.built.get(key)) and built.is_good and built.parts == node.parts)
        ]
        # Every node is as it was last built well; one that never was is not in it.
        artifacts = {MANIFEST: mixed_manifest(manifest, stale, last.folder) if stale else manifest}
        fresh = {key: entry for key, entry in details.items() if key in known}
        alive = {*known, *new.inputs.sources}
        for name, ours in ((RUN_RESULTS, fresh), (SOURCES, None)):
            if content := carried_over(name, last.folder, self.state.target_path, alive, ours):
                artifacts[name] = content
        return artifacts


def _ended(
    results: Mapping[str, NodeResult], started: Iterable[str], command: DbtCommand
) -> dict[str, tuple[str, str]]:
    is_real = _is_real(command.verb, [*command.flags, *flags_in(os.environ)])
    cut_off = (INTERRUPTED, datetime.now(UTC).isoformat())
    return dict.fromkeys(started, cut_off) | {
        key: (node.status if is_real or node.status not in GOOD else PARTIAL, node.finished_at.isoformat())
        for key, node in results.items()
    }


def _is_real(verb: str, flags: Iterable[str]) -> bool:
    return verb != "clone" and not is_on_a_part(flags, batches_too=True)


def _cut_off(run_path: Path) -> tuple[Done, str] | None:
    """Read what a run did from its ledger and from dbt's own log; None when it touched nothing."""
    ledger = run_path / LEDGER
    entries = list(read_ledger(ledger)) if ledger.exists() else []
    head = next((entry for entry in entries if entry.get("kind") == "run"), {})
    if (head.get("command") or {}).get("verb") not in _REMEMBERED:
        return None
    command = head["command"]
    is_real = _is_real(command["verb"], [*(command.get("flags") or ()), *(command.get("environment") or ())])
    since = taken_back(entries)
    ended = {unique_id: (INTERRUPTED, at.isoformat()) for unique_id, at in since.items()}
    events = node_events(entries, taken_over=False)
    for event in [*events, *logged_events(dbt_log(run_path))]:
        unique_id, status, at = event.unique_id, event.status, event.at
        if unique_id in since and at <= since[unique_id]:
            continue
        if status != STARTED:
            ended[unique_id] = (status if is_real or status not in GOOD else PARTIAL, at.isoformat())
        else:
            ended.setdefault(unique_id, (INTERRUPTED, at.isoformat()))
    return (Done(run_path.name, ended, head.get("sources") or {}), str(head.get("proof") or "")) if ended else None
