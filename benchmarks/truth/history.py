"""What is done with a generated project: commands, cuts in the middle of them, and edits between them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.truth.world import Check, Edit, World, generated_addition, generated_reading, without

# Where a run is cut: when it hears that a node begins, or that one ended, before or after it wrote that down; and
# before or after it wrote down what the next run with --changed starts from.
POINTS = ("begun", "unwritten", "written", "keeping", "kept")
VICTIMS = ("flow", "both", "dbt", "stop")


@dataclass(frozen=True)
class Cut:
    """Who is ended in the middle of a run, and when.

    Attributes:
        victim: "flow" or "dbt" by a kill, "both", or "stop" for Ctrl-C.
        number: at the so-manieth such moment.
    """

    victim: str
    point: str
    number: int

    def __str__(self) -> str:
        """Say it."""
        return f"[{self.victim} cut off at {self.point} {self.number}]"


@dataclass(frozen=True)
class Run:
    """One command.

    Attributes:
        verb: "build" for `run`, or "test".
        heals_after: the failures that pass by themselves do so in the wait before this further attempt.
    """

    verb: str = "build"
    select: str | None = None
    exclude: str | None = None
    selector: str | None = None
    full_refresh: bool = False
    changed: bool = False
    resume: bool = False
    fail_fast: bool = False
    retries: int = 0
    heals_after: int = 0
    variables: dict[str, int] = field(default_factory=dict[str, int])
    cut: Cut | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Return the fields of RunOptions."""
        return {
            **{"select": self.select, "exclude": self.exclude, "selector": self.selector},
            **{"full_refresh": self.full_refresh, "changed": self.changed, "resume": self.resume},
            **{"fail_fast": self.fail_fast, "retries": self.retries, "vars": self.variables},
        }

    @property
    def key(self) -> str:
        """Return what makes two commands the same for --resume."""
        return repr((self.verb, self.select, self.exclude, self.selector, self.full_refresh, self.variables))

    def words(self) -> list[str]:
        """Return it as it is typed after `python -m flows`."""
        said = ["run" if self.verb == "build" else self.verb]
        for name in ("select", "exclude", "selector"):
            value: str | None = getattr(self, name)
            for word in (value or "").split() if name != "selector" else [value] if value else []:
                said += [f"--{name}", word]
        for name in ("full_refresh", "changed", "resume", "fail_fast"):
            said += [f"--{name.replace('_', '-')}"] if getattr(self, name) else []
        if self.variables:
            said += ["--vars", "{" + ", ".join(f"{key}: {value}" for key, value in self.variables.items()) + "}"]
        return [*said, "--retries", str(self.retries)]

    def __str__(self) -> str:
        """Say it."""
        heals = f" [heals after {self.heals_after}]" if self.heals_after else ""
        return f"{' '.join(self.words())}{heals}{f' {self.cut}' if self.cut else ''}"


Step = Run | Edit


@dataclass(frozen=True)
class Selected:
    """What a command is for."""

    nodes: frozenset[str]
    checks: frozenset[str]


def selected(world: World, run: Run) -> Selected:
    """Return what a selection means, as dbt's documentation has it; tests come along with any node that they read."""
    everything = frozenset(world.nodes)
    left_out: set[str] = set()
    if run.selector:
        chosen = world.downstream(name for name, node in world.nodes.items() if "hot" in node.tags)
    elif run.select or run.exclude:
        chosen = _meant(world, run.select.split()) if run.select else set(everything)
        left_out = _meant(world, (run.exclude or "").split())
    else:
        chosen = set(everything)
        if world.has_default:
            left_out = {name for name, node in world.nodes.items() if "slow" in node.tags}
    checks = {
        check.name for check in world.checks.values() if _read_by(check) & chosen and not _read_by(check) & left_out
    }
    nodes = frozenset() if run.verb == "test" else frozenset(chosen - left_out)
    return Selected(nodes, frozenset(checks))


def _read_by(check: Check) -> set[str]:
    return set(check.of[:1]) if check.kind == "unit" else set(check.of)


def _meant(world: World, words: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for word in words:
        name = word.strip("+")
        if name.startswith("tag:"):
            here = {relation for relation, node in world.nodes.items() if name[4:] in node.tags}
        elif name.startswith("source:raw."):
            here = {f"source:{name[11:]}"}
        else:
            here = {relation for relation, node in world.nodes.items() if node.name == name}
        found |= here
        found |= world.upstream(here) if word.startswith("+") else set()
        found |= world.downstream(here) if word.endswith("+") else set()
    return found & world.nodes.keys()


def generated_history(chance: random.Random, world: World) -> list[Step]:
    """Return what is done, the last command being one for everything."""
    steps: list[Step] = []
    now = world

    def happen(edit: Edit) -> None:
        nonlocal now
        steps.append(edit)
        now = edit.applied(now)

    for number in range(chance.choice((1, 2, 2, 3))):
        for _ in range(chance.choice((0, 1, 1, 2) if number else (0, 0, 1, 2))):
            happen(_generated_edit(chance, now))
        run = _generated_run(chance, now, steps, is_first=not number)
        if chance.random() < 0.3:
            point = chance.choice((*POINTS, "written", "begun"))
            victims = ("flow", "stop") if point in ("keeping", "kept") else VICTIMS
            once = point in ("keeping", "kept")
            run = replace(run, cut=Cut(chance.choice(victims), point, 1 if once else chance.randrange(1, 9)))
        steps.append(run)
        if run.heals_after:
            now = passed(now)
    _end(chance, now, steps, happen)
    return steps


def _end(chance: random.Random, now: World, steps: list[Step], happen: Callable[[Edit], None]) -> None:
    """Heal what is broken, and let a last command do what is left."""
    way = chance.random()
    last = next(step for step in reversed(steps) if isinstance(step, Run))
    is_whole = not (last.select or last.exclude or last.selector) and last.verb == "build"
    happen(Edit("heal"))
    if is_whole and way < 0.4:
        steps.append(replace(last, resume=True, changed=False, cut=None, heals_after=0))
        if way > 0.25:
            happen(_generated_edit(chance, now, breaking=False))
            steps.append(Run(changed=True))
    elif way < 0.85:
        if chance.random() < 0.6:
            happen(_generated_edit(chance, now, breaking=False))
        steps.append(Run(changed=True, variables=chance.choice(({}, {}, {"bump": 3}))))
    else:
        steps.append(Run(full_refresh=chance.random() < 0.4))


def passed(world: World) -> World:
    """Return the world once what fails for a passing reason has passed."""
    return replace(world, env={name: value for name, value in world.env.items() if value != "pass"})


def _generated_run(chance: random.Random, world: World, steps: list[Step], is_first: bool) -> Run:
    earlier = [step for step in steps if isinstance(step, Run)]
    # What a selection named can be gone.
    if earlier and chance.random() < 0.35 and selected(world, replace(earlier[-1], verb="build")).nodes:
        return replace(earlier[-1], resume=True, changed=False, cut=None, heals_after=0)
    if not is_first and chance.random() < 0.08:
        return Run("test")
    run = Run(
        full_refresh=not is_first and chance.random() < 0.08,
        changed=not is_first and chance.random() < 0.45,
        fail_fast=chance.random() < 0.08,
        variables=chance.choice(({}, {}, {}, {"bump": 2})),
    )
    if "pass" in world.env.values():
        retries = chance.choice((0, 1, 2))
        run = replace(run, retries=retries, heals_after=chance.choice((0, 1, 1, 2)))
    if chance.random() < (0.2 if is_first else 0.35):
        run = _narrowed(chance, world, run)
    return run if selected(world, run).nodes else replace(run, select=None, exclude=None, selector=None)


def _narrowed(chance: random.Random, world: World, run: Run) -> Run:
    plain = [node.name for node in world.nodes.values() if node.name.startswith("node_") and node.shape != "ephemeral"]
    plain = [name for name in plain if name in world.nodes]
    name = chance.choice(plain)
    # A name that is the beginning of another's folder would select that, too: none is.
    way = chance.random()
    if way < 0.5:
        words = [chance.choice(("{}", "+{}", "{}+", "+{}+")).format(name)]
        if chance.random() < 0.3:
            words.append(f"{chance.choice(plain)}")
        return replace(run, select=" ".join(words))
    if way < 0.7:
        return replace(run, exclude=chance.choice(("{}", "{}+")).format(name))
    if way < 0.8:
        return replace(run, selector="hot")
    if way < 0.9:
        return replace(run, select="tag:hot")
    return replace(run, select=f"source:raw.{chance.choice([*world.sources])}+")


def _generated_edit(chance: random.Random, world: World, breaking: bool = True) -> Edit:
    models = [name for name, node in world.nodes.items() if node.kind == "model"]
    seeds = [name for name, node in world.nodes.items() if node.rows]
    value = chance.randrange(51, 99)
    harmless: Mapping[str, Any] = {
        "code": models,
        "data": [*world.sources],
        "rows": seeds,
        "shape": models,
        "move": models,
        "words": models,
        "drop": [name for name, node in world.nodes.items() if node.shape != "ephemeral"],
        "macro": [""],
        "project var": [""],
        "env": [""],
        "hook": [""] if world.hook is not None else [],
        "remove": [name for name in world.nodes if without(world, name) is not world],
    }
    way = chance.random()
    if way < 0.08:
        return generated_addition(chance, world)
    if way < 0.16 and (reading := generated_reading(chance, world)):
        return reading
    tripped = [node.trip for node in world.nodes.values() if node.can_trip]
    batched = [node.trip for node in world.nodes.values() if node.shape == "microbatch" and node.can_trip]
    solid = [node.trip for node in world.nodes.values() if node.can_trip and node.shape not in ("view", "ephemeral")]
    units = [check.name for check in world.checks.values() if check.kind == "unit"]
    harmful: Mapping[str, Any] = {
        "trip": [*tripped, *(("TRIP_START", "TRIP_END") if world.hook is not None else ())],
        "trip passing": solid,
        "trip batch": batched,
        "break": models,
        "bad data": [*world.sources],
        "stale": [name for name, source in world.sources.items() if source.has_freshness],
        "wrong test": units,
    }
    kinds = harmful if breaking and chance.random() < 0.5 else harmless
    what = chance.choice([name for name, places in kinds.items() if places] or ["macro"])
    return Edit(what, chance.choice((kinds | {"macro": [""]})[what]), value)
