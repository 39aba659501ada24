"""Decide which of several current versions of a key is the right one, why, and how the others change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from flows.runbook.project_tables import Versions

Action = Literal["keep", "open", "close", "supersede", "delete"]


@dataclass(frozen=True)
class RowChange:
    """The change to one row.

    Attributes:
        row: its number in the table of old rows.
        action: keep it; open: make it the current one; close: end it where the next version begins; supersede: mark
            that it holds at no time; delete it.
        ends_with: the row that begins where this one has to end; None unless it is closed.
        ends, new_ends: None for never.
    """

    table: str
    key: str
    row: int
    begins: Any
    ends: Any
    new_ends: Any
    action: Action
    reason: str
    ends_with: int | None = None


def plan_changes(versions: Versions, rows: Iterable[Mapping[str, Any]]) -> list[RowChange]:
    """Return the change to each row of keys with several current versions.

    Args:
        rows: all versions of those keys: every column, `repair_row`, and `has_no_end`.
    """
    keys: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        keys.setdefault(tuple(row[column.lower()] for column in versions.key), []).append(row)
    planned = [change for key in sorted(keys, key=repr) for change in _Key(versions, keys[key]).changes()]
    return planned


def digest_of(changes: Sequence[RowChange]) -> str:
    """Return a digest that is equal for plans with the same changes to the same rows."""
    told = sorted(
        f"{one.table}|{one.key}|{one.begins}|{one.ends}|{one.new_ends}|{one.action}|{one.reason}" for one in changes
    )
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


class _Key:
    """The versions of one key."""

    def __init__(self, versions: Versions, rows: Sequence[Mapping[str, Any]]) -> None:
        self._versions = versions
        self._rows = rows
        self._name = ", ".join(str(rows[0][column.lower()]) for column in versions.key)

    def changes(self) -> list[RowChange]:
        live = [row for row in self._rows if not self._is_superseded(row)]
        current = sorted((row for row in live if self._claims(row)), key=self._rank, reverse=True)
        closed = [row for row in live if not self._claims(row)]
        winner, losers = current[0], current[1:]
        stays = [winner, *closed]
        made: dict[int, RowChange] = {}
        for row in losers:
            gone = self._holds_at_no_time(row, winner, stays)
            if gone is None:
                stays.append(row)
            else:
                made[row["repair_row"]] = gone
        for row in losers:
            if row["repair_row"] not in made:
                made[row["repair_row"]] = self._closed(row, winner, stays)
        made[winner["repair_row"]] = self._winning(winner, losers)
        rest = (row for row in self._rows if row["repair_row"] not in made)
        made |= {row["repair_row"]: self._change(row, "keep", row[self._ends], "not concerned") for row in rest}
        return sorted(made.values(), key=lambda one: (str(one.begins), one.row))

    @property
    def _begins(self) -> str:
        return self._versions.begins.lower()

    @property
    def _ends(self) -> str:
        return self._versions.ends.lower()

    def _is_superseded(self, row: Mapping[str, Any]) -> bool:
        return bool(self._versions.superseded and row[self._versions.superseded.lower()])

    def _claims(self, row: Mapping[str, Any]) -> bool:
        return bool(row["has_no_end"] or (self._versions.current and row[self._versions.current.lower()]))

    def _rank(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the sort key of versions: entered last, begins last, reached the warehouse last."""
        columns = (self._versions.recorded, self._versions.begins, self._versions.inserted)
        values = [row[column.lower()] if column else None for column in columns]
        return (*((value is not None, _comparable(value)) for value in values), -row["repair_row"])

    def _holds_at_no_time(
        self, row: Mapping[str, Any], winner: Mapping[str, Any], stays: Sequence[Mapping[str, Any]]
    ) -> RowChange | None:
        for other in stays:
            if _without_number(row) == _without_number(other):
                return self._change(row, "delete", None, "the same row is there twice")
        same = [other for other in stays if other[self._begins] == row[self._begins]]
        begins_too_late = row[self._begins] is None or _comparable(row[self._begins]) > _comparable(
            winner[self._begins]
        )
        if not same and not begins_too_late:
            return None
        why = "another version that ranks above it begins at the same moment"
        if not same:
            why = f"it begins after the current version, which was entered later ({self._moment(winner)})"
        if self._versions.superseded:
            return self._change(row, "supersede", row[self._begins], f"{why}, so it is never valid")
        return self._change(row, "delete", None, f"{why}, so it is never valid")

    def _closed(
        self, row: Mapping[str, Any], winner: Mapping[str, Any], stays: Sequence[Mapping[str, Any]]
    ) -> RowChange:
        later = [
            other
            for other in stays
            if other[self._begins] is not None and _comparable(other[self._begins]) > _comparable(row[self._begins])
        ]
        following = min(later, key=lambda other: _comparable(other[self._begins]))
        reason = f"it ends where the next version begins; the current one is that from {winner[self._begins]}"
        return self._change(row, "close", following[self._begins], reason, following["repair_row"])

    def _winning(self, winner: Mapping[str, Any], losers: Sequence[Mapping[str, Any]]) -> RowChange:
        is_whole = winner["has_no_end"] and (
            self._versions.current is None or winner[self._versions.current.lower()] is True
        )
        reason = f"it is the right one: {self._why(winner, losers[0])}"
        return self._change(winner, "keep" if is_whole else "open", None, reason)

    def _why(self, winner: Mapping[str, Any], second: Mapping[str, Any]) -> str:
        """Return why the winner ranks above the second."""
        recorded, inserted = self._versions.recorded, self._versions.inserted
        if recorded and winner[recorded.lower()] != second[recorded.lower()]:
            return f"it was entered last ({winner[recorded.lower()]})"
        if winner[self._begins] != second[self._begins]:
            return f"it begins last ({winner[self._begins]})"
        if inserted and winner[inserted.lower()] != second[inserted.lower()]:
            return f"it begins at the same moment and reached the warehouse last ({winner[inserted.lower()]})"
        if _without_number(winner) == _without_number(second):
            return "all of them are equal"
        return "no known column decides between them, so the first is kept; check its other columns"

    def _moment(self, row: Mapping[str, Any]) -> Any:  # noqa: ANN401  (whatever the column holds)
        column = self._versions.recorded or self._versions.begins
        return row[column.lower()]

    def _change(
        self,
        row: Mapping[str, Any],
        action: Action,
        new_ends: Any,  # noqa: ANN401  (whatever the column holds)
        reason: str,
        ends_with: int | None = None,
    ) -> RowChange:
        ends = None if row["has_no_end"] else row[self._ends]
        shown = ends if action == "keep" else new_ends
        number, begins = int(row["repair_row"]), row[self._begins]
        return RowChange(self._versions.name, self._name, number, begins, ends, shown, action, reason, ends_with)


def _comparable(value: object) -> str:
    # ISO times sort as text like the times themselves; a column may have either.
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else str(value)


def _without_number(row: Mapping[str, Any]) -> dict[str, Any]:
    return {column: value for column, value in row.items() if column != "repair_row"}
