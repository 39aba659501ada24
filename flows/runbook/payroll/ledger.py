"""Payroll's record in the warehouse, beside the payments: what was signed, exported and paid, and every step.

`payroll_runs` has one row per concert, so that a second payment can't be recorded. `payroll_log` has a row per step and
is append-only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from flows.runbook.payroll.payments import PAYMENTS, ZERO, relation_of
from flows.runbook.payroll.signoff import Signature, SignoffAnswer
from infrastructure.commands import command
from infrastructure.errors import PayrollStopped
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from flows.engine.artifacts.manifest import Manifest
    from flows.warehouses.warehouse import Warehouse

_RUNS = {
    "concert_id": "integer",
    "checksum": "text",
    "musicians": "integer",
    "net_total": "numeric(18,2)",
    "flow_run_id": "text",
    "exported_at": "timestamp",
    "export_folder": "text",
    "archive": "text",
    "paid_at": "timestamp",
    "payment_date": "date",
    "recorded_by": "text",
    "adjustments": "numeric(18,2)",
    "paid_total": "numeric(18,2)",
}
_LOG = {
    "entry_id": "text",
    "logged_at": "timestamp",
    "concert_id": "integer",
    "flow_run_id": "text",
    "kind": "text",
    "role": "text",
    "who": "text",
    "amount": "numeric(18,2)",
    "checksum": "text",
    "answer_key": "text",
    "note": "text",
}
# The kinds of steps in payroll_log.
CHECKED, SIGNED, REFUSED, VOID, REJECTED, EXPORTED = "checked", "signed", "refused", "void", "rejected", "exported"
PAID, ADJUSTMENT, EXCEPTION = "paid", "adjustment", "exception"
# Warehouses that enforce unique keys; the others only record them.
_KEEP_KEYS = ("duckdb", "postgres")


@dataclass(frozen=True)
class Run:
    """A concert's payroll that was signed and exported, and its payment.

    Attributes:
        exported_at, paid_at: naive UTC; paid_at, payment_date and paid_total are None before it is paid.
    """

    concert_id: int
    checksum: str
    musicians: int
    net_total: Decimal
    flow_run_id: str
    exported_at: datetime
    export_folder: str
    archive: str
    paid_at: datetime | None
    payment_date: date | None
    recorded_by: str | None
    adjustments: Decimal | None
    paid_total: Decimal | None


@dataclass(frozen=True)
class Entry:
    """One step of a concert's payroll."""

    concert_id: int
    flow_run_id: str
    kind: str
    role: str = ""
    who: str = ""
    amount: Decimal = ZERO
    checksum: str = ""
    answer_key: str = ""
    note: str = ""
    logged_at: datetime | None = None


class PayrollLedger:
    """The two tables of one target, over an open connection."""

    def __init__(self, tables: Warehouse, manifest: Manifest) -> None:
        self.tables = tables
        self._payments = relation_of(manifest, PAYMENTS)
        self._runs, self._log = sibling(self._payments, "payroll_runs"), sibling(self._payments, "payroll_log")

    def has_payments(self) -> bool:
        """Return whether payments were ever calculated here."""
        return self.tables.exists(self._payments)

    def make(self) -> None:
        """Create the tables, if they do not exist."""
        for relation, columns in ((self._runs, _RUNS), (self._log, _LOG)):
            if not self.tables.exists(relation):
                declared = [f"{name} {self._type(kind)}" for name, kind in columns.items()]
                if self.tables.kind in _KEEP_KEYS:
                    declared.append(f"primary key ({next(iter(columns))})")
                self.tables.execute(f"create table if not exists {relation} ({', '.join(declared)})")

    def run(self, concert_id: int) -> Run | None:
        """Return the payroll of a concert; None before it was signed.

        Raises:
            PayrollStopped: there is more than one row of it.
        """
        if not self.tables.exists(self._runs):
            return None
        found = self.tables.rows(f"select {', '.join(_RUNS)} from {self._runs} where concert_id = ?", [concert_id])
        if len(found) > 1:
            raise PayrollStopped(
                f"{self._runs} has {count_of(len(found), 'row')} of concert {concert_id}, not one: delete the wrong "
                "ones."
            )
        return _run(found[0]) if found else None

    def runs(self) -> list[Run]:
        """Return every concert's payroll, the last exported first."""
        if not self.tables.exists(self._runs):
            return []
        rows = self.tables.rows(f"select {', '.join(_RUNS)} from {self._runs} order by exported_at desc")
        return [_run(row) for row in rows]

    def entries(self, concert_id: int) -> list[Entry]:
        """Return the steps of a concert's payroll, oldest first."""
        if not self.tables.exists(self._log):
            return []
        names = [name for name in _LOG if name != "entry_id"]
        query = f"select {', '.join(names)} from {self._log} where concert_id = ? order by logged_at, entry_id"
        return [_entry(row) for row in self.tables.rows(query, [concert_id])]

    def add(self, entry: Entry) -> None:
        """Record a step."""
        values: list[object] = [
            uuid4().hex,
            entry.logged_at or now(),
            *(getattr(entry, name) for name in list(_LOG)[2:]),
        ]
        self._insert(self._log, list(_LOG), values)

    def export(self, run: Run, entry: Entry) -> None:
        """Record that a concert was signed and exported, in place of an earlier export.

        Raises:
            PayrollStopped: the concert has been paid.
        """
        new = {name: getattr(run, name) for name in list(_RUNS)[1:8]}
        places = ", ".join(f"{name} = ?" for name in new)
        with self.tables.transaction():
            where = "where concert_id = ? and paid_at is null"
            changed = self.tables.execute(
                f"update {self._runs} set {places} {where}",
                [*new.values(), run.concert_id],
            )
            if changed == 0:
                refuse_paid(self.run(run.concert_id))
                self._insert(self._runs, ["concert_id", *new], [run.concert_id, *new.values()])
            self.add(entry)

    def pay(self, run: Run, entries: Sequence[Entry]) -> None:
        """Record that a concert was paid, once and only as it was signed.

        Args:
            run: with what was paid; its checksum is that of the current data.

        Raises:
            PayrollStopped: it has been paid, or was exported with other data.
        """
        with self.tables.transaction():
            # One statement that checks and changes: of two at once, the second changes nothing.
            changed = self.tables.execute(
                f"update {self._runs} set paid_at = ?, payment_date = ?, recorded_by = ?, adjustments = ?, "
                "paid_total = ? where concert_id = ? and checksum = ? and paid_at is null",
                [
                    run.paid_at,
                    run.payment_date,
                    run.recorded_by,
                    run.adjustments,
                    run.paid_total,
                    run.concert_id,
                    run.checksum,
                ],
            )
            if changed != 1:
                refuse_paid(self.run(run.concert_id))
                raise PayrollStopped(
                    f"Concert {run.concert_id} was not exported with the current data. Sign it again: "
                    + command(f"payroll pre --concert {run.concert_id}")
                )
            for entry in entries:
                self.add(entry)

    def _insert(self, relation: str, names: Sequence[str], values: Sequence[object]) -> None:
        places = ", ".join("?" for _ in names)
        self.tables.execute(f"insert into {relation} ({', '.join(names)}) values ({places})", values)

    def _type(self, kind: str) -> str:
        return kind if kind.startswith(("numeric", "date")) else self.tables.type_of(kind)


def signatures_of(entries: Sequence[Entry]) -> list[Signature]:
    """Return the approvals since the last rejection or payment."""
    found: list[Signature] = []
    for entry in entries:
        if entry.kind in (REJECTED, PAID):
            found = []
        elif entry.kind == SIGNED and entry.logged_at:
            found.append(Signature(entry.role, entry.who, entry.logged_at, entry.checksum, entry.note))
    return found


def is_answered(entries: Sequence[Entry], flow_run_id: str, answer: SignoffAnswer) -> bool:
    """Return whether an answer to the form has been processed."""
    return any(entry.flow_run_id == flow_run_id and entry.answer_key == answer.key for entry in entries)


def refuse_paid(run: Run | None) -> None:
    """Raise an error if a concert has been paid.

    Raises:
        PayrollStopped: it has.
    """
    if run and run.paid_at:
        raise PayrollStopped(
            f"Concert {run.concert_id} has been paid: {run.paid_total} on {run.payment_date}, recorded at "
            f"{run.paid_at:%Y-%m-%d %H:%M} UTC. Nothing is paid twice: correct it with the next concert."
        )


def sibling(relation: str, name: str) -> str:
    """Return the relation of another table beside one, quoted as that one is."""
    found = re.fullmatch(r'(.*\.)?(["`]?)[^."`]+(["`]?)', relation)
    if not found:
        raise PayrollStopped(f"Payroll can't keep its record beside {relation}, which is not a relation of a schema.")
    return f"{found[1] or ''}{found[2]}{name}{found[3]}"


def now() -> datetime:
    """Return the present moment in naive UTC, as the warehouse keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


def _run(row: dict[str, Any]) -> Run:
    whole: dict[str, Any] = {name: int(row[name]) for name in ("concert_id", "musicians")}
    return Run(**{**row, **whole})


def _entry(row: dict[str, Any]) -> Entry:
    whole: dict[str, Any] = {"concert_id": int(row["concert_id"])}
    return Entry(**{**row, **whole})
