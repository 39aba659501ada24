"""The property test of the product: its own judgement, and a few histories played to their end."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.truth.cases import case_of, shortest
from benchmarks.truth.history import Cut, Run, selected
from benchmarks.truth.rows import Ending, Found, Knowledge, from_nothing
from benchmarks.truth.world import Check, Edit, Node, Source, World, generated_world

ROOT = Path(__file__).parents[2]
WORLD = World(
    nodes={
        "base": Node("base", 0, "model", ("source:src",), add=1, can_trip=True),
        "inner": Node("inner", 1, "model", ("base",), "ephemeral", add=10),
        "top": Node("top", 2, "model", ("inner",), add=100),
        "seen": Node("seen", 3, "model", ("top",), "view", tags=frozenset(["slow"])),
    },
    checks={"below_top": Check("below_top", "below", ("top",))},
    sources={"src": Source("src", {0: 5})},
)
BUILT: Found = {"base": ("table", {0: 6}), "top": ("table", {0: 116}), "seen": ("view", {0: 116})}


def judged(world: World, run: Run, found: Found, code: int, before: Knowledge | None = None) -> list[str]:
    return (before or Knowledge()).judge(world, run, found, Ending(code, "it was said so")).wrong


def test_a_seed_is_the_same_case_each_time() -> None:
    assert case_of("1.5") == case_of("1.5") != case_of("1.6")


def test_rows_are_worked_out_through_what_is_inlined() -> None:
    assert from_nothing(WORLD, {}) == BUILT


def test_a_build_that_left_everything_as_it_should_is_right() -> None:
    assert judged(WORLD, Run(), BUILT, 0) == []


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ({**BUILT, "top": ("table", {0: 115})}, 0),
        ({**BUILT, "seen": ("table", {0: 116})}, 0),
        ({"base": BUILT["base"], "top": BUILT["top"]}, 0),
        (BUILT, 1),
    ],
    ids=["other rows", "a table for a view", "left out", "red without a reason"],
)
def test_what_a_build_may_not_leave_is_wrong(found: Found, code: int) -> None:
    assert judged(WORLD, Run(), found, code)


def test_exit_0_is_wrong_where_something_had_to_fail() -> None:
    bad = Edit("bad data", "src").applied(WORLD)
    found = from_nothing(bad, {}) | {"seen": ("view", {})}
    del found["seen"]
    assert judged(bad, Run(), found, 1) == []
    assert judged(bad, Run(), found, 0)


def test_what_was_not_asked_for_is_as_it_was() -> None:
    known = Knowledge()
    assert judged(WORLD, Run(), BUILT, 0, known) == []
    changed = Edit("code", "base", 2).applied(WORLD)
    only_base = {**BUILT, "base": ("table", {0: 7})}
    assert judged(changed, Run(select="base"), only_base, 0, known) == []
    assert judged(changed, Run(select="base"), {**only_base, "top": ("table", {0: 117})}, 0, known)


def test_a_resume_does_what_was_left_and_no_more_is_asked_of_it() -> None:
    known = Knowledge()
    tripped = Edit("trip", "TRIP_0").applied(WORLD)
    assert judged(tripped, Run(), {}, 1, known) == []
    assert judged(WORLD, Run(resume=True), {}, 0, known)
    known = Knowledge()
    assert judged(tripped, Run(), {}, 1, known) == []
    assert judged(WORLD, Run(resume=True), BUILT, 0, known) == []


def test_a_run_that_was_cut_off_may_have_done_a_part() -> None:
    run = Run(cut=Cut("flow", "begun", 2))
    for found in ({}, {"base": BUILT["base"]}, BUILT):
        assert Knowledge().judge(WORLD, run, found, Ending(-9, "", was_cut=True)).wrong == []
    assert Knowledge().judge(WORLD, run, {"base": ("table", {0: 1})}, Ending(-9, "", was_cut=True)).wrong


def test_a_default_selector_leaves_out_what_it_says() -> None:
    assert "seen" in selected(WORLD, Run()).nodes
    assert "seen" not in selected(replace(WORLD, has_default=True), Run()).nodes
    assert selected(WORLD, Run(select="base+", exclude="top+")) == selected(WORLD, Run(select="base inner"))


def test_the_shortest_case_that_fails_is_found() -> None:
    cases = (case_of(f"1.{number}", "2") for number in range(100))
    # The two versions of a model go together.
    case = next(case for case in cases if not any(node.version for node in case.world.nodes.values()))
    name = next(name for name, node in case.world.nodes.items() if not node.parents or node.kind == "seed")
    small = shortest(case, lambda each: name in each.world.nodes)
    assert len(small.steps) == 1
    assert [*small.world.nodes] == [name]


def test_projects_have_what_real_ones_have() -> None:
    worlds = [generated_world(random.Random(number), True) for number in range(200)]
    shapes = {node.shape for world in worlds for node in world.nodes.values()}
    assert shapes == {"table", "view", "incremental", "ephemeral", "microbatch", "snapshot"}
    kinds = {check.kind for world in worlds for check in world.checks.values()}
    assert kinds == {"not_null", "unique", "below", "singular", "related", "unit"}
    assert all(any(getattr(world, name) for world in worlds) for name in ("has_package", "has_metrics", "has_board"))


@pytest.mark.slow
def test_a_few_histories_are_right_by_the_dbt_of_this_environment() -> None:
    command = [sys.executable, "-m", "benchmarks.truth", "--projects", "3", "--engine", "own"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "wrong: 0 of 3"
