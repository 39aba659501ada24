"""One history, played from its beginning and held against what it should have come to; and the shortest that fails."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.truth.doors import Hanging, Place, plain_build, through_the_engine
from benchmarks.truth.files import drop, load_rows, read_rows, write_project
from benchmarks.truth.forks import in_fork
from benchmarks.truth.history import Run, Step, generated_history, passed
from benchmarks.truth.rows import Ending, Knowledge, from_nothing
from benchmarks.truth.world import Check, Edit, World, generated_world, without

# Of all histories whose end can be followed by it.
_AGAIN = 0.4
Door = Callable[[Run, Place, dict[str, str]], Ending]


@dataclass(frozen=True)
class Case:
    """A project and what is done with it."""

    seed: str
    world: World
    steps: tuple[Step, ...]


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
        wrong: sentences; empty where everything was as it should be.
        told: each step with how it ended.
    """

    wrong: list[str] = field(default_factory=list[str])
    told: list[str] = field(default_factory=list[str])
    commands: int = 0
    cuts: int = 0
    red: int = 0
    is_compared: bool = False
    cpu_seconds: float = 0.0


def case_of(seed: str, dbt: str = "1.12") -> Case:
    """Return the case of a seed.

    Args:
        dbt: its version. Of what dbt 2.0.0a4 does differently by itself, the case has nothing: it checks no freshness,
            a test that fails keeps back models and no snapshots, and a model does not know its batch.
    """
    chance = random.Random(seed)
    is_dbt_2 = dbt.startswith("2")
    world = generated_world(chance, has_freshness=not is_dbt_2)
    if not dbt.startswith("1.12"):
        world = replace(world, nodes={name: replace(node, goes_on=False) for name, node in world.nodes.items()})
    steps = generated_history(chance, world)
    if not dbt.startswith("1.12"):
        steps = [_stopping(step) for step in steps]
    if is_dbt_2:
        kept = {name: check for name, check in world.checks.items() if not _is_before_a_snapshot(world, check)}
        world = replace(world, checks=kept, has_transactions=False)
        steps = [
            Edit("trip", step.of) if isinstance(step, Edit) and step.what == "trip batch" else step
            for step in steps
            if not (isinstance(step, Edit) and step.node and step.node.kind == "snapshot")
        ]
    return Case(seed, world, tuple(steps))


def _stopping(step: Step) -> Step:
    if not isinstance(step, Edit) or step.node is None:
        return step
    return replace(step, node=replace(step.node, goes_on=False))


def _is_before_a_snapshot(world: World, check: Check) -> bool:
    inlined = {relation for relation, node in world.nodes.items() if node.shape == "ephemeral"}
    near = set(check.of)
    near |= {child for relation in world.nodes if relation in near & inlined for child in world.children(relation)}
    snapshots = [node for node in world.nodes.values() if node.kind == "snapshot"]
    return check.kind != "unit" and any(near & set(snapshot.parents) for snapshot in snapshots)


def for_the_program(case: Case) -> Case:
    """Return a case in which nothing waits for ten seconds to try again, and no command is one that `flows` lacks."""
    steps = [
        replace(step, retries=0, heals_after=0, verb="build") if isinstance(step, Run) else step for step in case.steps
    ]
    return replace(case, steps=tuple(steps))


def play(case: Case, place: Place, door: Door = through_the_engine) -> Outcome:
    """Do all that a case is made of in an empty folder."""
    began = os.times()
    outcome = Outcome()
    try:
        _play(case, place, door, outcome)
    except Hanging:
        outcome.wrong.append(f"{outcome.told[-1] if outcome.told else 'the first command'} did not end")
    ended = os.times()
    outcome.cpu_seconds = sum(ended[:4]) - sum(began[:4])
    return outcome


def _play(case: Case, place: Place, door: Door, outcome: Outcome) -> None:
    world, known = case.world, Knowledge()
    place.folder.mkdir(parents=True, exist_ok=True)
    in_fork(lambda: load_rows(place.warehouse, world.sources))
    last = Ending(0, "")
    for step in case.steps:
        if isinstance(step, Edit):
            earlier, world = world, step.applied(world)
            changed = {name: source for name, source in world.sources.items() if source != earlier.sources[name]}
            if changed:
                in_fork(lambda changed=changed: load_rows(place.warehouse, changed))
            if step.what == "drop":
                in_fork(lambda relation=step.of: drop(place.warehouse, relation))
                known.dropped(step.of)
            outcome.told.append(str(step))
            continue
        write_project(world, place.folder)
        outcome.told.append(str(step))
        last = door(step, place, world.environ)
        found = in_fork(lambda world=world: read_rows(place.warehouse, world))
        verdict = known.judge(world, step, found, last)
        outcome.commands += 1
        outcome.cuts += last.was_cut
        outcome.red += last.code != 0 and not last.was_cut
        outcome.told[-1] += f"  -> {last.code}{' (cut)' if last.was_cut else ''}"
        if verdict.must_fail:
            outcome.told[-1] += f"  had to fail: {', '.join(verdict.must_fail)}"
        outcome.wrong += [f"{step}: {sentence}" for sentence in verdict.wrong]
        if outcome.wrong:
            return
        if step.heals_after:
            world = passed(world)
    if last.code == 0 and not last.was_cut:
        _compare(case, place, world, known, outcome)
        if not outcome.wrong:
            _again(case, place, world, door, outcome)


def _compare(case: Case, place: Place, world: World, known: Knowledge, outcome: Outcome) -> None:
    """Hold the warehouse against that of a plain build from nothing, where the last command was for everything."""
    last = case.steps[-1]
    assert isinstance(last, Run)
    expected = from_nothing(world, last.variables)
    if last.resume and known.found != {**known.found, **expected}:
        # What was done before something changed is not done again by a resume.
        return
    outcome.is_compared = True
    folder = place.folder / "plain"
    folder.mkdir()
    write_project(world, folder)
    in_fork(lambda: load_rows(folder / place.warehouse.name, world.sources))
    said = plain_build(replace(place, folder=folder), folder, world.environ, last.variables)
    if said:
        outcome.wrong.append(f"a plain build fails, and the run did not: {said}")
        return
    there = in_fork(lambda: read_rows(folder / place.warehouse.name, world))
    # What a default selector leaves out may be as an earlier command left it, and so is what reads it.
    slow = {name for name, node in world.nodes.items() if "slow" in node.tags} if world.has_default else set[str]()
    old = world.downstream(slow)
    for relation in expected:
        if relation not in old and known.found.get(relation) != there.get(relation):
            outcome.wrong.append(
                f"{relation} is {known.found.get(relation)} after the last command, and {there.get(relation)} after a "
                "plain build from nothing"
            )


def _again(case: Case, place: Place, world: World, door: Door, outcome: Outcome) -> None:
    """Run what changed once more, now that nothing did: only what reads a source without freshness may be built."""
    last = case.steps[-1]
    if not isinstance(last, Run) or last.resume or random.Random(case.seed).random() > _AGAIN:
        return
    ending = door(Run(changed=True, variables=last.variables), place, world.environ)
    outcome.commands += 1
    if ending.code:
        outcome.wrong.append(f"exit {ending.code} of --changed after which nothing changed: {ending.said}")
        return
    written = max(place.state.rglob("runs/*/changes.json"), key=lambda path: path.parent.name)
    decisions = json.loads(written.read_bytes())
    unseen = {f"source:{name}" for name, source in world.sources.items() if not source.has_freshness}
    due = {relation for relation in world.downstream(unseen) if relation in world.nodes}
    due_ids = {
        ".".join(["", "pack" if node.package else "shop", node.name, *([f"v{node.version}"] if node.version else [])])
        for node in map(world.nodes.__getitem__, due)
    }
    for decision in decisions:
        kind, _, rest = decision["unique_id"].partition(".")
        if decision["is_built"] and kind in ("model", "seed", "snapshot") and f".{rest}" not in due_ids:
            outcome.wrong.append(f"--changed again builds {decision['unique_id']}: {decision['reason']}")


def shortest(case: Case, fails: Callable[[Case], bool], seconds: float = 120.0) -> Case:
    """Leave out of a case that fails what it fails without, for as long as there is time."""
    until = time.monotonic() + seconds
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for candidate in _smaller(case):
            if time.monotonic() > until:
                return case
            if fails(candidate):
                case, is_smaller = candidate, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    world, steps = case.world, case.steps
    for number in range(len(steps) - 1):
        yield replace(case, steps=(*steps[:number], *steps[number + 1 :]))
    for relation in reversed(world.nodes):
        if (smaller := without(world, relation)) is not world:
            yield replace(case, world=smaller)
    for name in world.checks:
        checks = {key: check for key, check in world.checks.items() if key != name}
        yield replace(case, world=replace(world, checks=checks))
    for feature in ("has_board", "has_metrics", "has_group", "is_disabled_there", "has_default"):
        if getattr(world, feature):
            yield replace(case, world=replace(world, **{feature: False}))
    if world.hook is not None:
        yield replace(case, world=replace(world, hook=None))
    for relation, node in world.nodes.items():
        for plainer in (
            replace(node, folder=""),
            replace(node, looks_up=frozenset()),
            replace(node, tags=frozenset()),
            replace(node, shape="table") if node.shape in ("view", "ephemeral", "microbatch") else node,
        ):
            if plainer != node:
                yield replace(case, world=replace(world, nodes={**world.nodes, relation: plainer}))


def removed(path: Path) -> None:
    """Remove a folder."""
    shutil.rmtree(path, ignore_errors=True)
