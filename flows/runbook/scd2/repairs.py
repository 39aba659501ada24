"""Repairs of versions in the warehouse: propose them, apply them in one transaction, and undo them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from flows.runbook.kept_tables import KeptTables
from flows.runbook.project_tables import Versions
from flows.runbook.scd2.plan import RowChange, digest_of, plan_changes
from flows.runbook.version_checks import Fault, find_faults, holds_now, is_open, key_list, same_key
from infrastructure.commands import command, program
from infrastructure.errors import ConfigError, DriftError, preview

if TYPE_CHECKING:
    from flows.warehouses.warehouse import Warehouse

# How long a repair can be undone.
KEPT_DAYS = 90
_JOURNAL = "scd2_repairs"
_COLUMNS = {
    "repair_id": "text",
    "model": "text",
    "relation": "text",
    "key_columns": "text",
    "old_rows": "text",
    "changes": "text",
    "state": "text",
    "changed_at": "timestamp",
}
_ROWS_AT_ONCE = 200


@dataclass(frozen=True)
class Repair:
    """A repair that is kept."""

    repair_id: str
    model: str
    relation: str
    key: tuple[str, ...]
    old_rows: str
    changes: str
    state: str
    changed_at: datetime


class Repairs:
    """The repairs of one target."""

    def __init__(self, tables: Warehouse, kept: KeptTables) -> None:
        self._tables = tables
        self._kept = kept

    def propose(self, versions: Versions) -> list[RowChange]:
        """Return the changes to a table; empty where no key has two current versions."""
        if not self._tables.exists(versions.relation):
            return []
        return plan_changes(versions, self._tables.rows(self._damaged(versions)))

    def apply(self, found: Sequence[Versions], confirmed: str | None = None) -> tuple[str, list[RowChange]]:
        """Repair tables in one transaction, and return the repair's id and the changes.

        Args:
            confirmed: digest of the confirmed plan; any plan is applied when None.

        Raises:
            DriftError: the plan is not the confirmed one. Nothing was changed.
            ConfigError: a table would still have faults afterwards. Nothing was changed.
        """
        self._kept.prepare()
        self._make_journal()
        self._tidy()
        repair_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:6]}"
        prepared: list[tuple[Versions, Repair, list[RowChange], set[tuple[str, str]]]] = []
        for number, versions in enumerate(found):
            repair = self._prepare(repair_id, number, versions)
            rows = self._tables.rows(
                f"select *, {is_open(self._tables, versions)} as has_no_end from {repair.old_rows}"
            )
            changes = plan_changes(versions, rows)
            before = {(fault.kind, fault.key_text) for fault in find_faults(self._tables, versions, repair.old_rows)}
            prepared.append((versions, repair, changes, before))
        everything = [change for _, _, changes, _ in prepared for change in changes]
        try:
            if confirmed is not None and digest_of(everything) != confirmed:
                raise DriftError(
                    "The tables have changed since the repair was shown, so the changes would not be those that were "
                    f"confirmed. Nothing was changed. Show them again: {command('scd2-repair')}"
                )
            for _, repair, changes, _ in prepared:
                self._write_changes(repair, changes)
            with self._tables.transaction():
                for versions, repair, _, before in prepared:
                    self._replace_rows(versions, repair)
                    self._require_whole(versions, repair, before)
                self._set_state(repair_id, "applied")
        except BaseException:
            self._forget([repair for _, repair, _, _ in prepared])
            raise
        return repair_id, everything

    def undo(self, repair_id: str, found: Sequence[Versions], force: bool = False) -> list[Repair]:
        """Restore the rows that a repair changed, in one transaction, and return the repairs undone.

        Args:
            force: also where the rows were changed again since.

        Raises:
            ConfigError: there is no such repair, or it is undone already.
            DriftError: the rows were changed again since.
        """
        repairs = [one for one in self.kept() if one.repair_id == repair_id]
        if not repairs:
            known = [one.repair_id for one in self.kept()]
            raise ConfigError(f"There is no repair {repair_id}. Kept are: {preview(known) or 'none'}.")
        if repairs[0].state != "applied":
            raise ConfigError(f"The repair {repair_id} is {repairs[0].state}, so there is nothing to undo.")
        by_name = {one.name: one for one in found}
        missing = [one.model for one in repairs if one.model not in by_name]
        if missing:
            raise ConfigError(f"The project no longer has {preview(missing)}, so its rows can't be restored.")
        for repair in repairs:
            if not force and self._is_changed_since(by_name[repair.model], repair):
                raise DriftError(
                    f"{repair.model} was changed after the repair {repair_id}: these changes would be lost. "
                    "Run again with --force to restore the old rows all the same."
                )
        with self._tables.transaction():
            for repair in repairs:
                columns = self._columns(repair.relation)
                self._delete(repair)
                self._tables.execute(
                    f"insert into {repair.relation} ({columns}) select {columns} from {repair.old_rows}"
                )
            self._set_state(repair_id, "undone")
        return repairs

    def kept(self) -> list[Repair]:
        """Return the repairs that are kept, newest first."""
        if not self._tables.exists(self._journal):
            return []
        rows = self._tables.rows(f"select * from {self._journal} order by repair_id desc, model")
        return [
            Repair(
                row["repair_id"],
                row["model"],
                row["relation"],
                tuple(row["key_columns"].split("\n")),
                row["old_rows"],
                row["changes"],
                row["state"],
                row["changed_at"],
            )
            for row in rows
        ]

    @property
    def _journal(self) -> str:
        return self._kept.relation(_JOURNAL)

    def _make_journal(self) -> None:
        self._kept.make_table(_JOURNAL, _COLUMNS)

    def _damaged(self, versions: Versions, numbered: str | None = None) -> str:
        """Return the query for all versions of the keys that have more than one current one."""
        keys = key_list(self._tables, versions)
        begins = self._tables.column(versions.begins)
        live = ""
        if versions.superseded:
            live = f" and not coalesce({self._tables.column(versions.superseded)}, false)"
        damaged = (
            f"select {keys} from {versions.relation} where {holds_now(self._tables, versions)}{live} "
            f"group by {keys} having count(*) > 1"
        )
        shown = "" if numbered else f", {is_open(self._tables, versions)} as has_no_end"
        return (
            f"select v.*{shown}, row_number() over (order by {key_list(self._tables, versions, 'v.')}, v.{begins}) "
            f"as repair_row from {versions.relation} as v inner join ({damaged}) as d "
            f"on {same_key(self._tables, versions, 'v', 'd')}"
        )

    def _prepare(self, repair_id: str, number: int, versions: Versions) -> Repair:
        """Copy the old rows; before the transaction, as not every warehouse creates tables inside one."""
        name = f"scd2_{repair_id}_{number}".replace("-", "_").lower()
        repair = Repair(
            repair_id,
            versions.name,
            versions.relation,
            versions.key,
            self._kept.relation(f"{name}_rows"),
            self._kept.relation(f"{name}_changes"),
            "prepared",
            datetime.now(UTC).replace(tzinfo=None),
        )
        self._tables.execute(
            f"insert into {self._journal} values ({', '.join('?' * len(_COLUMNS))})",
            [
                repair.repair_id,
                repair.model,
                repair.relation,
                "\n".join(repair.key),
                repair.old_rows,
                repair.changes,
                repair.state,
                repair.changed_at,
            ],
        )
        self._tables.execute(f"create table {repair.old_rows} as {self._damaged(versions, 'numbered')}")
        return repair

    def _write_changes(self, repair: Repair, changes: Sequence[RowChange]) -> None:
        columns = {"repair_row": "integer", "action": "text", "ends_with": "integer", "reason": "text"}
        declared = ", ".join(f"{name} {self._tables.type_of(kind)}" for name, kind in columns.items())
        self._tables.execute(f"create table {repair.changes} ({declared})")
        for start in range(0, len(changes), _ROWS_AT_ONCE):
            part = changes[start : start + _ROWS_AT_ONCE]
            values = [value for one in part for value in (one.row, one.action, one.ends_with, one.reason)]
            places = ", ".join(["(?, ?, ?, ?)"] * len(part))
            self._tables.execute(f"insert into {repair.changes} values {places}", values)

    def _replace_rows(self, versions: Versions, repair: Repair) -> None:
        self._delete(repair)
        self._tables.execute(
            f"insert into {repair.relation} ({self._columns(repair.relation)}) {self._repaired(versions, repair)}"
        )

    def _repaired(self, versions: Versions, repair: Repair) -> str:
        """Return the query for the repaired rows."""
        column = self._tables.column
        begins, ends = column(versions.begins), column(versions.ends)
        written = {
            versions.ends.lower(): f"case c.action when 'close' then n.{begins} when 'supersede' then o.{begins} "
            f"when 'open' then {versions.open_end} else o.{ends} end"
        }
        if versions.current:
            written[versions.current.lower()] = (
                f"case when c.action in ('close', 'supersede') then false when c.action = 'open' then true "
                f"else o.{column(versions.current)} end"
            )
        if versions.superseded:
            written[versions.superseded.lower()] = (
                f"case when c.action = 'supersede' then true else o.{column(versions.superseded)} end"
            )
        names = list(self._tables.columns(repair.relation))
        selected = ", ".join(f"{written.get(name.lower(), f'o.{column(name)}')} as {column(name)}" for name in names)
        return (
            f"select {selected} from {repair.old_rows} as o "
            f"inner join {repair.changes} as c on c.repair_row = o.repair_row "
            f"left join {repair.old_rows} as n on n.repair_row = c.ends_with where c.action <> 'delete'"
        )

    def _require_whole(self, versions: Versions, repair: Repair, before: set[tuple[str, str]]) -> None:
        left: list[Fault] = [
            fault
            for fault in find_faults(self._tables, versions, repair.old_rows)
            if fault.kind in ("duplicate", "flag") or (fault.kind, fault.key_text) not in before
        ]
        if left:
            told = preview([f"{fault.key_text}: {fault.text}" for fault in left])
            raise ConfigError(
                f"{versions.name} would still have faults after the repair ({told}), so nothing was changed. "
                f"Rebuild it from its source: {program()} run --select {versions.name} --full-refresh"
            )

    def _delete(self, repair: Repair) -> None:
        names = [self._tables.column(name) for name in repair.key]
        inner = ", ".join(f"{name} as repair_key_{place}" for place, name in enumerate(names))
        same = " and ".join(f"o.repair_key_{place} = {name}" for place, name in enumerate(names))
        self._tables.execute(
            f"delete from {repair.relation} where exists (select 1 from (select {inner} from {repair.old_rows}) as o "
            f"where {same})"
        )

    def _is_changed_since(self, versions: Versions, repair: Repair) -> bool:
        names = self._columns(repair.relation)
        now = f"select {names} from {repair.relation} as v where exists (select 1 from {repair.old_rows} as o "
        now += f"where {same_key(self._tables, versions, 'v', 'o')})"
        rows = (self._tables.rows(now), self._tables.rows(self._repaired(versions, repair)))
        found, left = (sorted(repr(sorted(row.items())) for row in part) for part in rows)
        return found != left

    def _columns(self, relation: str) -> str:
        return ", ".join(self._tables.column(name) for name in self._tables.columns(relation))

    def _set_state(self, repair_id: str, state: str) -> None:
        now = datetime.now(UTC).replace(tzinfo=None)
        self._tables.execute(
            f"update {self._journal} set state = ?, changed_at = ? where repair_id = ?", [state, now, repair_id]
        )

    def _forget(self, repairs: Sequence[Repair]) -> None:
        for repair in repairs:
            self._tables.drop(repair.changes)
            self._tables.drop(repair.old_rows)
        for repair_id in {repair.repair_id for repair in repairs}:
            self._tables.execute(f"delete from {self._journal} where repair_id = ?", [repair_id])

    def _tidy(self) -> None:
        """Drop what an interrupted repair left behind, and repairs that are too old to be undone."""
        before = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=KEPT_DAYS)
        self._forget([one for one in self.kept() if one.state == "prepared" or one.changed_at < before])


def table_rows(changes: Sequence[RowChange]) -> list[Mapping[str, Any]]:
    """Return a row per changed version, those of one key together; without columns that may have personal data."""
    return [
        {
            "table": one.table,
            "key": one.key,
            "from": str(one.begins),
            "to": _moment(one.ends),
            "becomes": {
                "keep": "stays current",
                "open": "current, without end",
                "close": f"ends {_moment(one.new_ends)}",
                "supersede": "superseded",
                "delete": "deleted",
            }[one.action],
            "reason": one.reason,
        }
        for one in changes
        if one.reason != "not concerned"
    ]


def _moment(value: object) -> str:
    return "never" if value is None else str(value)
