"""Run one concert's payroll from the checks over the signatures to the export, with each step recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import current_flow_run, current_holder
from flows.engine.target.file_lock import one_writer
from flows.runbook.payroll import ledger as kinds
from flows.runbook.payroll.archive import archive_payments
from flows.runbook.payroll.checks import PayrollEvidence, check_payroll
from flows.runbook.payroll.export import write_export
from flows.runbook.payroll.ledger import Entry, PayrollLedger, Run, is_answered, refuse_paid, signatures_of
from flows.runbook.payroll.payments import ZERO, Payments, read_payments, sample_of
from flows.runbook.payroll.show import form_text, publish, summary
from flows.runbook.payroll.signoff import Signature, SignoffAnswer, missing_roles, valid, why_refused
from flows.runbook.payroll.signoff_form import ask
from flows.warehouses.door import open_warehouse
from infrastructure.commands import command
from infrastructure.errors import PayrollStopped

if TYPE_CHECKING:
    from flows.engine.artifacts.manifest import Manifest
    from infrastructure.profiles import Profile


@dataclass(frozen=True)
class PrePayroll:
    """A concert whose payments were signed, exported and archived.

    Attributes:
        sha256: of the exported files, by name.
        archive: the relation of the day's copy of the payments.
    """

    concert_id: int
    target: str
    checksum: str
    musicians: int
    net_total: Decimal
    folder: Path
    sha256: Mapping[str, str]
    archive: str


class PayrollDesk:
    """One concert's payroll on its way from the checks to the export."""

    def __init__(
        self, concert_id: int, target: str, profile: Profile, manifest: Manifest, lasts: timedelta, poll_seconds: int
    ) -> None:
        self._concert_id = concert_id
        self._target = target
        self._profile = profile
        self._manifest = manifest
        self._lasts = lasts
        self._poll_seconds = poll_seconds
        self._flow_run_id = current_flow_run_id()
        self._questions = 0
        self._refused = ""

    def checked_before(self) -> tuple[Payments, str, datetime] | None:
        """Return what this flow run found before it was suspended, if the data is still the same."""
        with self._ledger() as (ledger, payments):
            refuse_paid(ledger.run(self._concert_id))
            mine = [e for e in ledger.entries(self._concert_id) if e.flow_run_id == self._flow_run_id]
        checked = [entry for entry in mine if entry.kind == kinds.CHECKED]
        if not checked or payments is None or checked[-1].checksum != payments.checksum:
            return None
        assert checked[-1].logged_at is not None
        return payments, checked[-1].note, checked[-1].logged_at

    def check(
        self, project_dir: str | None, freshness_hours: float, sample_size: int, sample_seed: int | None
    ) -> tuple[Payments, str, datetime]:
        with one_writer(self._target, holder=current_holder()):
            checked: PayrollEvidence = check_payroll(
                self._concert_id, self._target, self._profile, project_dir, freshness_hours
            )
            payments, found, at = checked.payments, summary(checked), kinds.now()
            seed, sample = sample_of(payments, sample_size, sample_seed)
            publish(self._target, checked, seed, sample)
            with self._ledger() as (ledger, _):
                ledger.add(self._entry(kinds.CHECKED, payments, note=found, logged_at=at))
        return payments, found, at

    def collect(self, payments: Payments, found: str, until: datetime) -> bool:
        """Ask until all roles have signed; False when the data has changed meanwhile.

        Raises:
            PayrollStopped: it was rejected, or it took too long.
        """
        while True:
            with self._ledger() as (ledger, present):
                if not self._is_same(ledger, payments, present):
                    return False
                signatures = self._signatures(ledger, payments)
            missing = missing_roles(signatures)
            if not missing:
                return True
            left = (until - kinds.now()).total_seconds()
            if left <= 0:
                raise PayrollStopped(f"Signatures are missing at the deadline: {', '.join(missing)}. Start it again.")
            self._questions += 1
            self._waits_for(missing)
            answer = ask(
                self._questions,
                missing,
                form_text(payments, found, signatures, self._refused),
                left,
                self._poll_seconds,
            )
            if not self._take(answer, payments):
                return False

    def finish(self, payments: Payments, root: Path) -> PrePayroll | None:
        """Archive and export what was signed; None when the data has changed."""
        with self._ledger() as (ledger, present):
            signatures = self._signatures(ledger, payments)
            if not self._is_same(ledger, payments, present) or missing_roles(signatures) or present is None:
                return None
            refuse_paid(ledger.run(self._concert_id))
            archive = archive_payments(ledger.tables, self._manifest, datetime.now(UTC).date())
            export = write_export(root, present, signatures, self._flow_run_id)
            count, total = len(present.rows), present.total
            run = Run(
                self._concert_id,
                present.checksum,
                count,
                total,
                self._flow_run_id,
                kinds.now(),
                str(export.folder),
                archive,
                *(None,) * 5,
            )
            ledger.export(run, self._entry(kinds.EXPORTED, present, amount=total, note=f"{export.folder}, {archive}"))
        return PrePayroll(
            self._concert_id, self._target, present.checksum, count, total, export.folder, export.sha256, archive
        )

    def no_longer_waits(self) -> None:
        from flows.alerts import close_incident

        close_incident(self._incident_key, self._target)

    def _take(self, answer: SignoffAnswer, payments: Payments) -> bool:
        """Process an answer; return False when the data has changed."""
        with self._ledger() as (ledger, present):
            entries = ledger.entries(self._concert_id)
            if is_answered(entries, self._flow_run_id, answer):
                # Prefect repeats the answers to earlier questions in a run that was suspended.
                return True
            if answer.decision == "reject":
                ledger.add(self._entry(kinds.REJECTED, payments, note=answer.comment, answer=answer))
                raise PayrollStopped(
                    f"Payroll of concert {self._concert_id} was rejected as {answer.role}: "
                    f"{answer.comment or 'no reason was given'}. Nothing was exported."
                )
            if not self._is_same(ledger, payments, present, answer):
                return False
            self._refused = why_refused(answer.role, answer.who, self._signatures(ledger, payments)) or ""
            kind, note = (kinds.REFUSED, self._refused) if self._refused else (kinds.SIGNED, answer.comment)
            ledger.add(self._entry(kind, payments, note=note, answer=answer))
            said = f"was not taken. {self._refused}" if self._refused else "was taken."
            current_reporter().note(f"The signature as {answer.role} {said}")
            return True

    def _is_same(
        self, ledger: PayrollLedger, payments: Payments, present: Payments | None, answer: SignoffAnswer | None = None
    ) -> bool:
        if present is not None and present.checksum == payments.checksum:
            return True
        note = f"the data is {present.checksum if present else 'not there'} now"
        ledger.add(self._entry(kinds.VOID, payments, note=note, answer=answer))
        return False

    def _signatures(self, ledger: PayrollLedger, payments: Payments) -> list[Signature]:
        entries = ledger.entries(self._concert_id)
        return valid(signatures_of(entries), payments.checksum, kinds.now(), self._lasts)

    def _entry(
        self,
        kind: str,
        payments: Payments,
        note: str = "",
        amount: Decimal = ZERO,
        answer: SignoffAnswer | None = None,
        logged_at: datetime | None = None,
    ) -> Entry:
        role, who, key = (answer.role, answer.who, answer.key) if answer else ("", "", "")
        return Entry(
            self._concert_id, self._flow_run_id, kind, role, who, amount, payments.checksum, key, note, logged_at
        )

    @contextmanager
    def _ledger(self) -> Iterator[tuple[PayrollLedger, Payments | None]]:
        """Yield the ledger and the current payments while the target is locked: None before there are any."""
        holder = current_holder()
        with one_writer(self._target, holder=holder), open_warehouse(self._profile) as tables:
            ledger = PayrollLedger(tables, self._manifest)
            present = read_payments(tables, self._manifest, self._concert_id) if ledger.has_payments() else None
            if present is not None:
                ledger.make()
            yield ledger, present

    def _waits_for(self, missing: Sequence[str]) -> None:
        from flows.alerts import Incident
        from flows.alerts.notify import deliver, write_down

        signing = command(f"payroll sign --run {self._flow_run_id} --role '{missing[0]}' --who NAME")
        roles = ", ".join(missing)
        current_reporter().note(f"Waiting for signatures: {roles}. In the Prefect UI, with Resume; or: {signing}")
        title = f"Payroll of concert {self._concert_id} waits for signatures: {roles}"
        incident = Incident(self._incident_key, "warning", title, target=self._target, retry_command=signing)
        # Sent at once, not at the end of the run like other incidents: the run ends when they have signed.
        write_down(self._target, [incident])
        deliver(self._target)

    @property
    def _incident_key(self) -> str:
        return f"payroll/concert {self._concert_id} waits"


def current_flow_run_id() -> str:
    """Return the id of the flow run that this code runs in; empty outside of one."""
    run = current_flow_run()
    return str(run.id) if run else ""
