"""What is to change and why, for setup, deployments and dbt Cloud alike: one model, one format, one exit code.

Each of them compares what is declared with what exists, and subclasses `Change` with what applying it needs. This
module counts the changes and formats them for people and programs. It never asks a server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from infrastructure.errors import ExitCode
from infrastructure.screen import styled

UNCHANGED = "unchanged"
# Action → its colour, and its past participle. Actions that change nothing have no participle.
_COLOURS = {
    "create": "green",
    "update": "yellow",
    "remove": "red",
    "delete": "red",
    "blocked": "magenta",
    "left": "yellow",
    "not ours": "yellow",
}
_DONE = {"create": "created", "update": "updated", "remove": "removed", "delete": "deleted"}
_LONGEST = 200
_INDENT = " " * 13


@dataclass(frozen=True)
class FieldChange:
    """One field that differs; None where there is none on that side. Never holds a secret."""

    path: str
    old: Any
    new: Any

    def text(self) -> str:
        """Return the difference as a line for people."""
        if self.old is None:
            return styled(f"+ {self.path}: {_text(self.new)}", fg="green")
        if self.new is None:
            return styled(f"- {self.path}: {_text(self.old)}", fg="red")
        # Values that differ but read the same are secrets.
        values = "changed (secret)" if self.old == self.new else f"{_text(self.old)} → {_text(self.new)}"
        return styled(f"~ {self.path}: {values}", fg="yellow")


@dataclass(frozen=True)
class Change:
    """One thing to change; each kind of thing has a subclass with what applying it needs.

    Attributes:
        name: as the server knows it.
        action: create, update, remove or delete; unchanged; or what no program does by itself: left, blocked, not ours.
        fields: what differs.
        reason: why, where the fields do not say it.
    """

    name: str
    action: str
    fields: tuple[FieldChange, ...] = ()
    reason: str = ""

    @property
    def title(self) -> str:
        """Return the name of the thing for people."""
        return self.name

    @property
    def is_change(self) -> bool:
        """Return whether applying it changes something."""
        return self.action in _DONE

    def details(self) -> list[str]:
        """Return the differences, a line each."""
        return [field.text() for field in self.fields]

    def as_document(self, key: str = "name") -> dict[str, Any]:
        """Return the change as a JSON document, with its name under this key."""
        fields = [{"path": it.path, "old": it.old, "new": it.new} for it in self.fields]
        return {key: self.name, "action": self.action, "fields": fields, "reason": self.reason}


Kind = TypeVar("Kind", bound=Change)


@dataclass(frozen=True)
class Plan:
    """The changes that bring a server to what is declared, in the order in which they are shown.

    Attributes:
        notes: warnings, as sentences.
    """

    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    def only(self, kind: type[Kind]) -> list[Kind]:
        """Return the changes to things of one kind, and not of a kind derived from it."""
        return [change for change in self.changes if type(change) is kind]

    @property
    def is_empty(self) -> bool:
        """Return whether everything is as declared; blocked changes count as different."""
        return not any(change.is_change or change.action == "blocked" for change in self.changes)

    @property
    def exit_code(self) -> ExitCode:
        """Return the exit code of a command that checks whether there is something to change."""
        return ExitCode.DONE if self.is_empty else ExitCode.CHANGES

    def counts(self) -> Counter[str]:
        """Return how many changes there are of each action."""
        return Counter(change.action for change in self.changes)

    def lines(self, is_done: bool = False, details: bool = True, without: Iterable[str] = ()) -> list[str]:
        """Return the changes as lines for people.

        Args:
            is_done: use the past tense.
            details: include what differs.
            without: actions to leave out; unchanged things are only counted.
        """
        found: list[str] = []
        for change in self.changes:
            if change.action == UNCHANGED or change.action in without:
                continue
            found.append(line(change, is_done))
            if details:
                found += [_INDENT + detail for detail in change.details()]
        return found

    def unchanged_line(self) -> list[str]:
        """Return the line that counts unchanged things; empty where there are none."""
        count = self.counts()[UNCHANGED]
        return [f"  {UNCHANGED:9}  {count}"] if count else []

    def done(self) -> str:
        """Return how many changes were made, in words."""
        counts = self.counts()
        return ", ".join(f"{counts[action]} {word}" for action, word in _DONE.items() if counts[action])


def line(change: Change, is_done: bool = False) -> str:
    """Return a change as one line for people."""
    word = _DONE.get(change.action, change.action) if is_done else change.action
    reason = f": {change.reason}" if change.reason else ""
    return f"  {styled(f'{word:9}', fg=_COLOURS.get(change.action))}  {change.title}{reason}"


def _text(value: object) -> str:
    import orjson

    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
