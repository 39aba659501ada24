"""Keep old tables through a full refresh, with a journal in the warehouse of how far it got.

    backing up → backed up → rebuilding → verified → kept → let go
                        └──────────┴→ restoring → restored

The journal is beside the tables, so that the next run on any machine can recover from a killed run: an incomplete
backup is dropped, and an interrupted rebuild or restore is undone completely.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from infrastructure.commands import command
from infrastructure.errors import ConfigError, preview

if TYPE_CHECKING:
    from flows.runbook.kept_tables import KeptTables
    from flows.warehouses.warehouse import Warehouse

_REFRESHES, _REFRESHED = "refreshes", "refreshed"
_REFRESH_COLUMNS = {
    "refresh_id": "text",
    "target": "text",
    "run_id": "text",
    "state": "text",
    "changed_at": "timestamp",
    "keep_until": "timestamp",
}
_TABLE_COLUMNS = {
    "refresh_id": "text",
    "place": "integer",
    "name": "text",
    "relation": "text",
    "backup": "text",
    "statement": "text",
    "row_count": "integer",
    "state": "text",
}
_HALF_MADE = "backing up"
_UNDO = frozenset({"backed up", "rebuilding", "restoring"})
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Refresh:
    """A full refresh and how far it got.

    Attributes:
        run_id: of the flow run that began it; empty outside of one.
    """

    refresh_id: str
    run_id: str
    state: str
    changed_at: datetime
    keep_until: datetime | None


@dataclass(frozen=True)
class Kept:
    """A table or view as it was before a refresh.

    Attributes:
        backup: the relation of the copy; empty for a view.
        statement: creates the view; empty for a table.
    """

    place: int
    name: str
    relation: str
    backup: str
    statement: str
    row_count: int
    state: str


class RefreshJournal:
    """The refreshes of one target."""

    def __init__(self, tables: Warehouse, kept: KeptTables, target: str) -> None:
        self._tables = tables
        self._kept = kept
        self._target = target

    def unfinished(self) -> Refresh | None:
        """Return the refresh that a killed run left unfinished; None when there is none."""
        ended = ("kept", "restored", "dropped", "let go")
        return next((one for one in self._refreshes() if one.state not in ended), None)

    def recover(self, refresh: Refresh, overtaken_by: str | None = None) -> str:
        """Recover from a killed run, and return what was done in words.

        Args:
            overtaken_by: what has been built in the kept tables since, which a restore would lose.
        """
        if overtaken_by and refresh.state in _UNDO:
            self.set_state(refresh, "kept")
            return (
                f"left the tables as they are, though refresh {refresh.refresh_id} was interrupted ({refresh.state}): "
                f"{overtaken_by} has been built since. The old tables are kept"
            )
        if refresh.state == _HALF_MADE:
            self._drop(refresh, "dropped")
            return f"dropped the incomplete backup of refresh {refresh.refresh_id}"
        if refresh.state in _UNDO:
            self.restore(refresh)
            return f"restored the tables from before refresh {refresh.refresh_id}, interrupted while {refresh.state}"
        self.set_state(refresh, "kept")
        return f"kept the old tables of refresh {refresh.refresh_id}, which had succeeded"

    def back_up(
        self, tables: Sequence[tuple[str, str]], views: Sequence[tuple[str, str]], keep_days: float, run_id: str = ""
    ) -> tuple[Refresh, list[Kept]]:
        """Copy tables, save views, and return the refresh that may now begin.

        Args:
            tables, views: name and relation; views in the order in which they can be created.
            run_id: of the flow run that begins it.
        """
        self._kept.prepare()
        self._kept.make_table(_REFRESHES, _REFRESH_COLUMNS)
        self._kept.make_table(_REFRESHED, _TABLE_COLUMNS)
        now = datetime.now(UTC)
        until = (now + timedelta(days=keep_days)).replace(tzinfo=None)
        refresh = Refresh(f"{now:%Y%m%dT%H%M%S}_{uuid4().hex[:6]}", run_id, _HALF_MADE, _now(), until)
        self._tables.execute(
            f"insert into {self._kept.relation(_REFRESHES)} values (?, ?, ?, ?, ?, ?)",
            [refresh.refresh_id, self._target, run_id, refresh.state, refresh.changed_at, until],
        )
        with self._at_once():
            for place, (name, relation) in enumerate(tables):
                copy = self._kept.relation(f"r{refresh.refresh_id}_{place:03d}_{name}".lower()[:_LONGEST_NAME])
                # Recorded first, so that a copy outside the transaction is not forgotten.
                self._write(refresh, Kept(place, name, relation, copy, "", 0, "backing up"))
                self._tables.copy(relation, copy)
                (row,) = self._tables.rows(f"select count(*) as counted from {copy}")
                self._tables.execute(
                    f"update {self._kept.relation(_REFRESHED)} set row_count = ?, state = ? "
                    "where refresh_id = ? and place = ?",
                    [int(row["counted"]), "backed up", refresh.refresh_id, place],
                )
            for place, (name, relation) in enumerate(views, start=len(tables)):
                statement = self._tables.view_statement(relation)
                if statement:
                    self._write(refresh, Kept(place, name, relation, "", statement, 0, "backed up"))
            self.set_state(refresh, "backed up")
        return refresh, self.kept(refresh)

    def restore(self, refresh: Refresh) -> None:
        """Restore all old tables and views: in one transaction where the warehouse can, else one after the other.

        Raises:
            ConfigError: a table has another number of rows than before.
        """
        self.set_state(refresh, "restoring")
        with self._at_once():
            self._put_back(refresh)
            self.set_state(refresh, "restored")
        self._drop(refresh, "restored")

    def set_state(self, refresh: Refresh, state: str) -> None:
        """Record how far a refresh got."""
        self._tables.execute(
            f"update {self._kept.relation(_REFRESHES)} set state = ?, changed_at = ? where refresh_id = ?",
            [state, _now(), refresh.refresh_id],
        )

    def expired(self) -> list[Refresh]:
        """Return the refreshes whose old tables need not be kept any longer."""
        return [one for one in self._refreshes() if one.state == "kept" and one.keep_until and one.keep_until <= _now()]

    def let_go(self, refresh: Refresh) -> None:
        """Drop the old tables of a refresh."""
        self._drop(refresh, "let go")

    def kept(self, refresh: Refresh) -> list[Kept]:
        """Return the tables and views that a refresh has kept, in order."""
        rows = self._tables.rows(
            f"select * from {self._kept.relation(_REFRESHED)} where refresh_id = ? order by place", [refresh.refresh_id]
        )
        return [Kept(**{name: row[name] for name in _TABLE_COLUMNS if name != "refresh_id"}) for row in rows]

    def _at_once(self) -> AbstractContextManager[None]:
        """Run the block in a transaction, where tables can be created in one."""
        return self._tables.transaction() if self._tables.has_transactional_ddl else nullcontext()

    def _refreshes(self) -> list[Refresh]:
        journal = self._kept.relation(_REFRESHES)
        if not self._tables.exists(journal):
            return []
        rows = self._tables.rows(f"select * from {journal} where target = ? order by refresh_id desc", [self._target])
        return [
            Refresh(row["refresh_id"], row["run_id"], row["state"], row["changed_at"], row["keep_until"])
            for row in rows
        ]

    def _write(self, refresh: Refresh, kept: Kept) -> None:
        self._tables.execute(
            f"insert into {self._kept.relation(_REFRESHED)} values ({', '.join('?' * len(_TABLE_COLUMNS))})",
            [
                refresh.refresh_id,
                kept.place,
                kept.name,
                kept.relation,
                kept.backup,
                kept.statement,
                kept.row_count,
                kept.state,
            ],
        )

    def _put_back(self, refresh: Refresh) -> None:
        everything = self.kept(refresh)
        copies = [one for one in everything if one.backup]
        views = [one for one in everything if one.statement]
        changed = [one for one in views if self._tables.view_statement(one.relation) != one.statement]
        if self._tables.kind == "postgres" and (changed or any(map(self._has_other_columns, copies))):
            # There, a table under a view can't be replaced: all views are dropped and recreated in this transaction.
            changed = views
            for one in reversed(views):
                self._tables.drop(one.relation)
        wrong: list[str] = []
        for one in copies:
            if one.state == "restored":
                continue
            self._tables.copy(one.backup, one.relation)
            (row,) = self._tables.rows(f"select count(*) as counted from {one.relation}")
            if int(row["counted"]) != int(one.row_count):
                wrong.append(f"{one.name} has {row['counted']} rows, and had {one.row_count}")
            self._tables.execute(
                f"update {self._kept.relation(_REFRESHED)} set state = ? where refresh_id = ? and place = ?",
                ["restored", refresh.refresh_id, one.place],
            )
        if wrong:
            raise ConfigError(
                f"The tables from before refresh {refresh.refresh_id} could not be restored: {preview(wrong)}. "
                f"The copies are kept. Run it again: {command('full-refresh --recover')}"
            )
        for one in changed:
            self._tables.put_view(one.relation, one.statement)

    def _has_other_columns(self, kept: Kept) -> bool:
        return self._tables.columns(kept.relation) != self._tables.columns(kept.backup)

    def _drop(self, refresh: Refresh, state: str) -> None:
        for one in self.kept(refresh):
            if one.backup:
                self._tables.drop(one.backup)
        self.set_state(refresh, state)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
