"""What has to come of a command, worked out from the project alone: the rows of every node, and whether it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.truth.history import Run, Selected, passed, selected
from benchmarks.truth.world import BAD, LIMIT, Check, Node, World

Rows = dict[int, int]
# Of each node, as `files.read_rows` returns it: "table" or "view" with its values by id, or why it can't be read.
Found = Mapping[str, tuple[str, Rows | str]]


class Failing(Exception):
    """A query reads what is not there, or minds what it reads."""


@dataclass(frozen=True)
class Definition:
    """What a node's query computes: where ephemeral models are parents, they are part of it."""

    add: int
    parents: tuple[str | Definition, ...]
    own: tuple[tuple[int, int], ...] = ()
    minds_data: bool = False
    is_broken: bool = False

    def rows(self, found: Found, world: World) -> Rows:
        """Return its rows over what is in the warehouse.

        Raises:
            Failing: a parent is not there, or has what this minds.
        """
        if self.is_broken:
            raise Failing("is broken")
        sums: Rows = dict(self.own)
        for parent in self.parents:
            for key, value in _rows_of(parent, found, world).items():
                if self.minds_data and value >= BAD:
                    raise Failing("minds its data")
                sums[key] = sums.get(key, 0) + value
        return {key: value + self.add for key, value in sums.items()}


def _rows_of(parent: str | Definition, found: Found, world: World) -> Rows:
    if isinstance(parent, Definition):
        return parent.rows(found, world)
    if parent.startswith("source:"):
        return world.sources[parent[7:]].rows
    _, rows = found.get(parent, ("", "is not there"))
    if isinstance(rows, str):
        raise Failing(f"{parent} {rows}")
    return rows


def definition_of(world: World, node: Node, variables: dict[str, int]) -> Definition:
    """Return what a node computes as the project is now."""
    if node.kind != "model":
        return Definition(0, node.parents, tuple(node.rows.items()))
    parents = tuple(
        definition_of(world, world.nodes[parent], variables)
        if parent in world.nodes and world.nodes[parent].shape == "ephemeral"
        else parent
        for parent in node.parents
    )
    own = () if node.parents else tuple(node.rows.items())
    return Definition(world.constant(node, variables), parents, own, node.minds_data, node.is_broken)


@dataclass(frozen=True)
class Record:
    """What a run left undone, which its resume has to do: relations, names of tests, and HOOKS."""

    key: str
    verb: str
    is_ok: bool
    pending: frozenset[str]


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        was_cut: its cut was reached, whatever came of it.
    """

    code: int
    said: str
    was_cut: bool = False


@dataclass
class Verdict:
    """What was wrong with a command, in sentences; why it had to fail, or may have; and what it left undone."""

    wrong: list[str] = field(default_factory=list[str])
    must_fail: list[str] = field(default_factory=list[str])
    may_fail: list[str] = field(default_factory=list[str])
    pending: set[str] = field(default_factory=set[str])


HOOKS = "its hooks"


class Knowledge:
    """What is known of a warehouse between commands."""

    def __init__(self) -> None:
        self.found: Found = {}
        # How the view that is there may be defined; after a cut that can be the old way or the new.
        self.views: dict[str, list[Definition]] = {}
        self.records: list[Record] = []

    def judge(self, world: World, run: Run, found: Found, ending: Ending) -> Verdict:
        """Hold what a command left against what it should have done, and take what is there for known from now on.

        Args:
            world: as it was when the command began.
            found: what is in the warehouse now.
        """
        chosen = selected(world, run)
        verdict = Verdict()
        old = _too_old(world, run, chosen) if run.verb == "build" else ""
        if old:
            # It stops before it is a run of its own.
            verdict.must_fail.append(f"{old} is stale")
            self._untouched(world, found, verdict)
        else:
            resumed, is_of_something_else = self._resumed(run)
            left = resumed.pending if resumed else None
            if is_of_something_else:
                verdict.must_fail.append("what is left is of another command")
                self._untouched(world, found, verdict)
            elif _is_tripped(world, "TRIP_START") and left is None and not run.changed:
                verdict.must_fail.append("on-run-start")
                self._untouched(world, found, verdict)
                verdict.pending |= {*chosen.nodes, *chosen.checks, HOOKS}
            else:
                _Walk(self, world, run, chosen, found, ending, left, verdict).go()
                self._hooks(world, run, found, ending, left, verdict)
            is_ok = ending.code == 0
            if not is_of_something_else:
                left_undone = frozenset(() if is_ok else verdict.pending)
                self.records.append(Record(run.key, run.verb, is_ok, left_undone))
        if ending.code == 0 and verdict.must_fail:
            verdict.wrong.append(f"exit 0, though these had to fail: {', '.join(verdict.must_fail)}")
        if ending.code == 70:
            verdict.wrong.append(f"an error that nobody foresaw: {ending.said}")
        elif ending.code != 0 and not (verdict.must_fail or verdict.may_fail or ending.was_cut):
            verdict.wrong.append(f"exit {ending.code} without a reason: {ending.said}")
        self.found = found
        return verdict

    def _resumed(self, run: Run) -> tuple[Record | None, bool]:
        """Return the run that a resume goes on with; or whether what is left is one of another command."""
        if not run.resume:
            return None, False
        is_other = False
        for record in reversed(self.records):
            if record.key == run.key:
                return (record, False) if not record.is_ok or not is_other else (None, True)
            is_other = is_other or (record.verb == run.verb and not record.is_ok)
        return None, is_other

    def dropped(self, relation: str) -> None:
        """Take note that somebody dropped a table or a view."""
        self.found = {name: found for name, found in self.found.items() if name != relation}

    def as_before(self, relation: str, found: Found, world: World) -> list[object]:
        """Return what a relation may hold if nothing was done to it; a view shows what is under it now."""
        before = self.found.get(relation)
        if before is None or before[0] != "view":
            return [before]
        shown: list[object] = []
        for definition in self.views.get(relation, ()):
            try:
                shown.append(("view", definition.rows(found, world)))
            except Failing:
                shown.append(found.get(relation))
        return shown

    def _untouched(self, world: World, found: Found, verdict: Verdict) -> None:
        for relation in world.nodes:
            before = self.as_before(relation, found, world)
            if found.get(relation) not in before:
                verdict.wrong.append(f"{relation} is {found.get(relation)}, not {before}: nothing was to be built")

    def _hooks(
        self, world: World, run: Run, found: Found, ending: Ending, left: frozenset[str] | None, verdict: Verdict
    ) -> None:
        if world.hook is None:
            return
        is_run = left is None and not run.changed
        if any(_is_tripped(world, hook) for hook in ("TRIP_START", "TRIP_END")):
            (verdict.must_fail if is_run else verdict.may_fail).append("a hook")
        done = found.get("run_done", ("", {}))[1]
        is_done = done == {world.hook: world.hook}
        if ending.code == 0 and run.verb == "build" and not is_done and (left is None or HOOKS in left):
            verdict.wrong.append(f"exit 0, and its on-run-end hook left {done}, not {world.hook}")
        if not is_done or _is_tripped(world, "TRIP_END"):
            verdict.pending.add(HOOKS)


def _is_tripped(world: World, hook: str) -> bool:
    return world.hook is not None and world.env.get(hook) == "hard"


def _too_old(world: World, run: Run, chosen: Selected) -> str:
    """Return the stale sources that a command depends on; one for everything looks at all."""
    if not (run.select or run.exclude or run.selector or world.has_default):
        return ", ".join(name for name, source in world.sources.items() if source.is_stale)
    tested = {relation for check in chosen.checks for relation in world.checks[check].of}
    behind = world.upstream(chosen.nodes | tested)
    return ", ".join(name for name, source in world.sources.items() if source.is_stale and f"source:{name}" in behind)


@dataclass(frozen=True)
class _Stop:
    """Something that keeps all from running that depends on all of these relations."""

    of: frozenset[str]
    is_sure: bool
    is_test: bool = False


class _Walk:
    """One look at every node and test, parents first."""

    def __init__(  # noqa: PLR0913  (the two sides that one walk compares)
        self,
        known: Knowledge,
        world: World,
        run: Run,
        chosen: Selected,
        found: Found,
        ending: Ending,
        left: frozenset[str] | None,
        verdict: Verdict,
    ) -> None:
        self._known, self._world, self._run, self._chosen = known, world, run, chosen
        self._found, self._left, self._verdict = found, left, verdict
        self._behind = {name: world.upstream([name]) - {name} for name in world.nodes}
        self._stops: list[_Stop] = []
        # What passes does so in one of the waits, where there are enough of them.
        is_passing = 0 < run.heals_after <= run.retries
        self._env = passed(world).env if is_passing else world.env
        # Nobody can say how far it got.
        is_open = ending.was_cut or run.fail_fast or _is_tripped(world, "TRIP_START")
        # With dbt 2, a hook that fails keeps what failed for a passing reason from being tried again.
        is_open = is_open or (_is_tripped(world, "TRIP_END") and "pass" in world.env.values())
        self._is_open = is_open and ending.code != 0

    def go(self) -> None:
        """Look at everything."""
        seen: set[str] = set()
        for relation, node in self._world.nodes.items():
            for check in self._world.checks.values():
                if check.kind == "unit" and check.of[0] == relation:
                    self._check(check)
            if node.shape != "ephemeral":
                self._node(relation, node)
            seen.add(relation)
            for check in self._world.checks.values():
                if check.kind != "unit" and relation in check.of and seen.issuperset(check.of):
                    self._check(check)

    def _node(self, relation: str, node: Node) -> None:
        before, here = self._known.as_before(relation, self._found, self._world), self._found.get(relation)
        if relation not in self._chosen.nodes:
            if here not in before:
                self._verdict.wrong.append(f"{relation} was not asked for, and is {here}, not {_either(before)}")
            return
        is_due = self._left is None or relation in self._left
        is_kept, may_be_kept = self._kept_back(self._behind[relation], relation)
        why = self._why_it_fails(node)
        allowed = list(before) if is_kept or may_be_kept or not is_due or self._is_open else []
        new: object = None
        if why:
            goes_on = node.goes_on and not is_kept
            # What is as it should be is not built again for a parent that is gone and was not asked for.
            is_built = not (self._run.changed and self._is_gone(self._behind[relation] - self._chosen.nodes))
            self._stop([relation], why, is_due and is_built and not is_kept, keeps_back=not goes_on)
            if goes_on and is_due:
                # What read the old one has to be done again.
                late = self._world.downstream([relation])
                checks = {check.name for check in self._world.checks.values() if late & set(check.of)}
                self._verdict.pending |= (late & self._chosen.nodes) | (checks & self._chosen.checks)
            partial = self._of_batches(node) if why == "trips (batch)" and not is_kept else None
            allowed += [partial] if partial else list(before)
        elif not is_kept:
            definition = definition_of(self._world, node, self._run.variables)
            new = ("view" if node.shape == "view" else "table", self._new_rows(relation, node, definition))
            if node.shape == "view":
                earlier = self._known.views.get(relation, []) if allowed else []
                self._known.views[relation] = list(dict.fromkeys([*earlier, definition]))
            allowed.append(new)
        if self._is_open:
            # dbt 2 puts a table in place of another, and fills a seed, not in one transaction.
            allowed += [None, *([("table", {})] if node.kind == "seed" else [])]
            if node.shape == "incremental" and not self._world.has_transactions and isinstance(new, tuple):
                # Nor does it take the old rows out and put the new ones in.
                kept = definition_of(self._world, node, self._run.variables).rows(self._found, self._world)
                old = [each[1] for each in before if isinstance(each, tuple) and isinstance(each[1], dict)]
                allowed += [("table", {key: value for key, value in rows.items() if key not in kept}) for rows in old]
        is_mixed = self._is_open and node.shape == "microbatch" and _is_mixed(here, [*allowed, ("table", {})])
        if here not in allowed and not is_mixed:
            self._verdict.wrong.append(f"{relation} is {here}, not {_either(allowed)}")
        if here != new and is_due:
            self._verdict.pending.add(relation)
        if may_be_kept or (self._is_open and here != new):
            self._stops.append(_Stop(frozenset([relation]), is_kept))

    def _is_gone(self, relations: set[str]) -> bool:
        nodes = {name: self._world.nodes[name] for name in relations & self._world.nodes.keys()}
        return any(name not in self._found for name, node in nodes.items() if node.shape != "ephemeral")

    def _check(self, check: Check) -> None:
        if check.name not in self._chosen.checks:
            return
        behind = {name for relation in check.of for name in (relation, *self._behind[relation])}
        if check.kind == "unit":
            behind.discard(check.of[0])
        is_kept = any(stop.is_sure and not stop.is_test and stop.of <= behind for stop in self._stops)
        if self._run.verb == "build" and check.kind != "unit":
            is_kept = is_kept or any(self._kept_back(self._behind[relation], relation)[0] for relation in check.of)
        is_due = self._left is None or check.name in self._left
        why = "" if is_kept else self._why_it_finds(check)
        is_failing = bool(why) and not (check.is_warning and why == "found rows")
        if (is_kept or is_failing) and is_due:
            self._verdict.pending.add(check.name)
        if is_failing:
            of = [f"unit:{check.of[0]}"] if check.kind == "unit" else check.of
            self._stop(of, f"{check.name} {why}", is_due, is_test=True)

    def _stop(
        self,
        of: list[str] | tuple[str, ...],
        why: str,
        is_sure: bool,
        is_test: bool = False,
        keeps_back: bool = True,
    ) -> None:
        (self._verdict.must_fail if is_sure else self._verdict.may_fail).append(f"{of[0]}: {why}")
        if not keeps_back:
            return
        self._stops.append(_Stop(frozenset(of), is_sure and not self._is_open, is_test))

    def _kept_back(self, behind: set[str], relation: str) -> tuple[bool, bool]:
        """Say whether something that failed keeps a node from running: for sure, and perhaps."""
        mine = [stop for stop in self._stops if stop.of <= behind or stop.of == frozenset([f"unit:{relation}"])]
        return any(stop.is_sure for stop in mine), bool(mine)

    def _why_it_fails(self, node: Node) -> str:
        """Return why a node fails when it is run; empty when it does not."""
        tripped = self._env.get(node.trip) if node.can_trip else None
        if node.is_broken:
            return "is broken"
        if tripped == "hard" or (tripped == "pass" and node.shape != "view"):
            return f"trips ({tripped})"
        try:
            definition_of(self._world, node, self._run.variables).rows(self._found, self._world)
        except Failing as exc:
            return str(exc)
        return "trips (batch)" if tripped == "batch" and node.shape == "microbatch" else ""

    def _new_rows(self, relation: str, node: Node, definition: Definition) -> Rows:
        rows = definition.rows(self._found, self._world)
        shape, old = self._known.found.get(relation) or ("", {})
        is_added = node.shape == "snapshot" or (node.shape == "incremental" and not self._run.full_refresh)
        return {**old, **rows} if is_added and shape == "table" and isinstance(old, dict) else rows

    def _of_batches(self, node: Node) -> tuple[str, Rows]:
        """Return what is there of a microbatch model of whose three batches the second failed."""
        rows = definition_of(self._world, node, self._run.variables).rows(self._found, self._world)
        _, old = self._known.found.get(node.relation) or ("", {})
        kept = old if isinstance(old, dict) and not self._run.full_refresh else {}
        return "table", {
            **{key: value for key, value in kept.items() if key % 3 == 1},
            **{key: value for key, value in rows.items() if key % 3 != 1},
        }

    def _why_it_finds(self, check: Check) -> str:
        """Return why a test does not pass; empty when it does."""
        nodes = [self._world.nodes[relation] for relation in check.of]
        try:
            if check.kind == "unit":
                _rows_of(nodes[0].parents[0], self._found, self._world)
                tripped = self._env.get(nodes[0].trip) if nodes[0].can_trip else None
                is_bad = nodes[0].is_broken or tripped == "hard" or (tripped == "pass" and nodes[0].shape != "view")
                return "does not run" if is_bad else "expects something else" if check.is_wrong else ""
            rows = [self._rows_for(node) for node in nodes]
        except Failing as exc:
            return str(exc)
        if check.kind in ("below", "singular"):
            return "found rows" if any(value >= LIMIT for value in rows[0].values()) else ""
        return "found rows" if check.kind == "related" and rows[0].keys() - rows[1].keys() else ""

    def _rows_for(self, node: Node) -> Rows:
        if node.shape != "ephemeral":
            return _rows_of(node.relation, self._found, self._world)
        return definition_of(self._world, node, self._run.variables).rows(self._found, self._world)


def _is_mixed(here: object, allowed: list[object]) -> bool:
    """Say whether each batch of a model that was cut off is as one of these has it."""
    wholes = [each[1] for each in (here, *allowed) if isinstance(each, tuple) and isinstance(each[1], dict)]
    batches = [
        [{key: value for key, value in whole.items() if key % 3 == batch} for whole in wholes] for batch in range(3)
    ]
    return isinstance(here, tuple) and all(batch[0] in batch[1:] for batch in batches)


def _either(allowed: list[object]) -> str:
    return " or ".join(map(str, allowed))


def from_nothing(world: World, variables: dict[str, int]) -> dict[str, tuple[str, Rows | str]]:
    """Return what a build of everything comes to in a warehouse that has the sources alone."""
    found: dict[str, tuple[str, Rows | str]] = {}
    for relation, node in world.nodes.items():
        if node.shape != "ephemeral":
            rows = definition_of(world, node, variables).rows(found, world)
            found[relation] = ("view" if node.shape == "view" else "table", rows)
    return found
