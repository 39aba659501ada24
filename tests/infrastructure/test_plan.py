"""One model and one look of what is to change, whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from click import unstyle

from infrastructure.errors import ExitCode
from infrastructure.plan import Change, FieldChange, Plan
from infrastructure.screen import echo


@dataclass(frozen=True)
class Derived(Change):
    """A kind of its own."""


FIELDS = (
    FieldChange("new", None, "a"),
    FieldChange("old", "b", None),
    FieldChange("both", 4, [8, "x"]),
    FieldChange("password", "(secret)", "(secret)"),
)


def shown(plan: Plan, capsys: pytest.CaptureFixture[str], **how: Any) -> str:
    echo("\n".join([*plan.lines(**how), *plan.unchanged_line()]))
    return unstyle(capsys.readouterr().out)


def test_a_plan_shows_what_differs_and_why_and_counts_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(
        (Change("a", "update", FIELDS), Change("b", "left", reason="of somebody else"), Change("c", "unchanged"))
    )
    assert shown(plan, capsys) == (
        "  update     a\n"
        "             + new: a\n"
        "             - old: b\n"
        '             ~ both: 4 → [8,"x"]\n'
        "             ~ password: changed (secret)\n"
        "  left       b: of somebody else\n"
        "  unchanged  1\n"
    )
    assert shown(plan, capsys, is_done=True, details=False, without=["left"]) == "  updated    a\n  unchanged  1\n"
    assert plan.done() == "1 updated"


def test_only_what_is_to_be_done_or_needs_a_person_is_a_change() -> None:
    def code(*actions: str) -> ExitCode:
        return Plan(tuple(Change("x", action) for action in actions)).exit_code

    assert code() is code("unchanged", "left", "refresh", "not ours") is ExitCode.DONE
    for action in ("create", "update", "remove", "delete", "blocked"):
        assert code("unchanged", action) is ExitCode.CHANGES


def test_a_document_holds_the_values_and_a_line_cuts_them() -> None:
    change = Change("a", "update", (FieldChange("text", "x" * 300, "y"),), "why")
    assert change.as_document("block") == {
        "block": "a",
        "action": "update",
        "fields": [{"path": "text", "old": "x" * 300, "new": "y"}],
        "reason": "why",
    }
    assert "x" * 199 + "… → y" in change.fields[0].text()


def test_changes_are_found_by_their_kind_alone() -> None:
    plan = Plan((Change("a", "create"), Derived("b", "create")))
    assert [it.name for it in plan.only(Derived)] == ["b"]
    assert [it.name for it in plan.only(Change)] == ["a"]
