"""What is to change and why, for setup, deployments and dbt Cloud alike: one model, one look, one exit code.

A room compares what is declared with what is there, and makes changes of it, with what it needs to carry them out. Here
they are counted, shown to people and given to programs. Nothing here asks a server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from infrastructure.errors import ExitCode
from infrastructure.screen import styled

UNCHANGED = "unchanged"
# Action → its colour, and its word once it is done. Those that change nothing by themselves have none of the latter.
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
        """Return the difference as people read it."""
        if self.old is None:
            return styled(f"+ {self.path}: {_text(self.new)}", fg="green")
        if self.new is None:
            return styled(f"- {self.path}: {_text(self.old)}", fg="red")
        # What differs and reads alike is a secret.
        values = "changed (secret)" if self.old == self.new else f"{_text(self.old)} → {_text(self.new)}"
        return styled(f"~ {self.path}: {values}", fg="yellow")


@dataclass(frozen=True)
class Change:
    """What has to happen to one thing; a kind of thing has a class of its own, with what carrying it out takes.

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
        """Return what a person calls the thing."""
        return self.name

    @property
    def is_change(self) -> bool:
        """Tell whether carrying it out changes something."""
        return self.action in _DONE

    def details(self) -> list[str]:
        """Return what differs, a line each."""
        return [field.text() for field in self.fields]

    def as_document(self, key: str = "name") -> dict[str, Any]:
        """Return the change for a program to read, under the key that names such things."""
        fields = [{"path": it.path, "old": it.old, "new": it.new} for it in self.fields]
        return {key: self.name, "action": self.action, "fields": fields, "reason": self.reason}


Kind = TypeVar("Kind", bound=Change)


@dataclass(frozen=True)
class Plan:
    """The changes that bring a server to what is declared, in the order in which they are shown.

    Attributes:
        notes: sentences about what works and will give trouble.
    """

    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    def only(self, kind: type[Kind]) -> list[Kind]:
        """Return the changes to things of one kind, and not of a kind derived from it."""
        return [change for change in self.changes if type(change) is kind]

    @property
    def is_empty(self) -> bool:
        """Tell whether everything is as declared; what is blocked is not."""
        return not any(change.is_change or change.action == "blocked" for change in self.changes)

    @property
    def exit_code(self) -> ExitCode:
        """Return what a command ends with that was asked whether there is something to change."""
        return ExitCode.DONE if self.is_empty else ExitCode.CHANGES

    def counts(self) -> Counter[str]:
        """Return how many changes there are of each action."""
        return Counter(change.action for change in self.changes)

    def lines(self, is_done: bool = False, details: bool = True, without: Iterable[str] = ()) -> list[str]:
        """Return the changes as people read them.

        Args:
            is_done: say that they were made.
            details: what differs, too.
            without: actions that are not shown; what is unchanged never is, other than counted.
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
        """Return the line that counts what is as it should be; none where nothing is."""
        count = self.counts()[UNCHANGED]
        return [f"  {UNCHANGED:9}  {count}"] if count else []

    def done(self) -> str:
        """Return how many changes were made, in words."""
        counts = self.counts()
        return ", ".join(f"{counts[action]} {word}" for action, word in _DONE.items() if counts[action])


def line(change: Change, is_done: bool = False) -> str:
    """Return a change in one line, as people read it."""
    word = _DONE.get(change.action, change.action) if is_done else change.action
    reason = f": {change.reason}" if change.reason else ""
    return f"  {styled(f'{word:9}', fg=_COLOURS.get(change.action))}  {change.title}{reason}"


def _text(value: object) -> str:
    import orjson

    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
