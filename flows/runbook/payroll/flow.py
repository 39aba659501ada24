"""Payroll of one concert: check, get three signatures, export, archive; and afterwards record that it was paid."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from prefect import flow
from pydantic import BaseModel, Field

from flows.alerts.hooks import with_alerts
from flows.engine.context.command import DbtCommand
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import RunContext, flow_run_name, open_context
from flows.engine.context.state import state_root
from flows.engine.process.listing import list_nodes
from flows.engine.target.file_lock import one_writer
from flows.runbook.payroll import ledger as kinds
from flows.runbook.payroll.desk import PayrollDesk, PrePayroll, current_flow_run_id
from flows.runbook.payroll.export import changed_files
from flows.runbook.payroll.ledger import Entry, PayrollLedger, Run, refuse_paid, signatures_of
from flows.runbook.payroll.payments import ZERO, read_payments
from flows.runbook.payroll.plan import Planned, plan_payroll
from flows.runbook.payroll.show import money
from flows.runbook.payroll.signoff import missing_roles, valid
from flows.runbook.payroll.signoff_form import Asked, waiting
from flows.warehouses.door import open_warehouse
from infrastructure.commands import command, program
from infrastructure.errors import ConfigError, PayrollStopped, TributaryError, preview
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from flows.engine.artifacts.manifest import Manifest

FRESHNESS_HOURS = 24.0
SIGN_WITHIN_HOURS = 24.0
SAMPLE_SIZE = 10
# How often the data may change while it is being signed before payroll gives up.
_ROUNDS = 5


class Adjustment(BaseModel):
    """An amount that was paid to a musician in addition, or deducted where it is negative."""

    musician_id: int = Field(title="Musician's number")
    amount: Annotated[Decimal, Field(max_digits=18, decimal_places=2, title="Amount, negative for less")]
    reason: str = Field(min_length=1, title="Reason")


@dataclass(frozen=True)
class PostPayroll:
    """What was recorded as paid.

    Attributes:
        paid_total: net amounts and adjustments.
        is_dry_run: whether it was not recorded, but only would be.
    """

    concert_id: int
    target: str
    musicians: int
    net_total: Decimal
    adjustments: Decimal
    paid_total: Decimal
    payment_date: date
    is_dry_run: bool = False


@with_alerts
@flow(flow_run_name=flow_run_name("pre-payroll", "concert_id"), validate_parameters=True)
def pre_payroll(  # noqa: PLR0913  (its form in Prefect's UI)
    concert_id: int,
    target: str = "dev",
    project_dir: str | None = None,
    freshness_hours: float = FRESHNESS_HOURS,
    sign_within_hours: float = SIGN_WITHIN_HOURS,
    sample_size: int = SAMPLE_SIZE,
    sample_seed: int | None = None,
    export_to: str | None = None,
    poll_seconds: int = 5,
    dry_run: bool = False,
) -> PrePayroll | Planned:
    """Prepare the payments of a concert: check them, get them signed, export and archive them.

    It stops at the first problem: a source that is too old, a test that did not run and pass, an amount that differs
    from the source. Then three people sign, in any order: a run of a deployment is suspended meanwhile and needs no
    process; another run waits. Signatures are for the current data: when it changes, everything is checked and signed
    again. A second run keeps the signatures for the same data.

    Args:
        freshness_hours: how old a source table may be.
        sign_within_hours: how long after the checks the last signature may be, and how long each is good.
        sample_size, sample_seed: how many payments are shown for the spot check, and the seed that picks them.
        export_to: a folder; payroll/<target> in the state folder when None.
        poll_seconds: how often to look for a signature while waiting in this process.
        dry_run: only return what would be done.

    Raises:
        PayrollStopped: names every reason.
        ConfigError: a block or a model is missing, or there is no server that other people can reach.
    """
    # Closed before the wait for signatures, during which the target's secrets may change.
    with open_context(target, project_dir) as run:
        project, profile = run.project, run.profile
        manifest = _manifest(run)
    root = Path(export_to).expanduser().absolute() if export_to else export_root(target)
    lasts = timedelta(hours=sign_within_hours)
    if dry_run:
        return plan_payroll(concert_id, target, profile, project, manifest, root, lasts)
    _require_shared_server()
    desk = PayrollDesk(concert_id, target, profile, manifest, lasts, poll_seconds)
    try:
        for _ in range(_ROUNDS):
            payments, found, checked_at = desk.checked_before() or desk.check(
                project_dir, freshness_hours, sample_size, sample_seed
            )
            if desk.collect(payments, found, checked_at + lasts):
                done = desk.finish(payments, root)
                if done:
                    desk.no_longer_waits()
                    return done
            current_reporter().note(
                "The payments changed while they were being signed: they are checked and signed again."
            )
    except TributaryError:
        desk.no_longer_waits()
        raise
    raise PayrollStopped(
        f"The payments of concert {concert_id} changed {_ROUNDS} times while they were being signed. Find out what "
        f"changes them: {program()} payroll status --concert {concert_id} --target {target}"
    )


@with_alerts
@flow(flow_run_name=flow_run_name("post-payroll", "concert_id"), validate_parameters=True)
def post_payroll(  # noqa: PLR0913  (its form in Prefect's UI)
    concert_id: int,
    target: str = "dev",
    project_dir: str | None = None,
    payment_date: date | None = None,
    recorded_by: str = "",
    adjustments: list[Adjustment] | None = None,
    exceptions: list[str] | None = None,
    dry_run: bool = False,
) -> PostPayroll:
    """Record that a concert was paid: once, and only if it was signed and exported.

    Args:
        payment_date: today in UTC when None.
        recorded_by: who records it.
        adjustments: amounts paid in addition.
        exceptions: exceptions to record, in words.
        dry_run: only return what would be recorded.

    Raises:
        PayrollStopped: it was not signed, has been paid, or has changed since it was signed.
        ConfigError: an adjustment is for a musician who is not paid here.
    """
    with open_context(target, project_dir) as context:
        profile, manifest = context.profile, _manifest(context)
    given = adjustments or []
    run_id = current_flow_run_id()
    with one_writer(target, holder=context.holder), open_warehouse(profile) as tables:
        ledger = PayrollLedger(tables, manifest)
        run = ledger.run(concert_id)
        again = command(f"payroll pre --concert {concert_id} --target {target}")
        if run is None:
            raise PayrollStopped(
                f"Concert {concert_id} was not signed and exported, so it must not be paid. Do: {again}"
            )
        refuse_paid(run)
        payments = read_payments(tables, manifest, concert_id)
        if payments.checksum != run.checksum:
            raise PayrollStopped(
                f"The payments of concert {concert_id} have changed since they were signed and exported at "
                f"{run.exported_at:%Y-%m-%d %H:%M} UTC. Don't pay that file. Sign anew: {again}"
            )
        _require_signed(ledger, run, again)
        _require_unchanged_export(run, again)
        strangers = [str(a.musician_id) for a in given if a.musician_id not in {r.musician_id for r in payments.rows}]
        if strangers:
            raise ConfigError(
                f"Concert {concert_id} pays no musician {preview(strangers)}, so nothing can be adjusted."
            )
        adjusted = sum((adjustment.amount for adjustment in given), ZERO)
        total = payments.total + adjusted
        day = payment_date or datetime.now(UTC).date()
        paid = replace(
            run,
            paid_at=kinds.now(),
            payment_date=day,
            recorded_by=recorded_by,
            adjustments=adjusted,
            paid_total=total,
        )
        entries = [Entry(concert_id, run_id, kinds.PAID, who=recorded_by, amount=total, checksum=run.checksum)]
        entries += [
            Entry(concert_id, run_id, kinds.ADJUSTMENT, amount=a.amount, note=f"musician {a.musician_id}: {a.reason}")
            for a in given
        ]
        entries += [Entry(concert_id, run_id, kinds.EXCEPTION, note=text) for text in exceptions or []]
        if not dry_run:
            ledger.pay(paid, entries)
    current_reporter().note(
        f"Concert {concert_id}: {count_of(len(payments.rows), 'musician')}, {money(total)} paid on {day}"
        f"{', not recorded (dry run)' if dry_run else ''}."
    )
    return PostPayroll(concert_id, target, len(payments.rows), payments.total, adjusted, total, day, dry_run)


def payroll_status(
    target: str, project_dir: str | None = None, concert_id: int | None = None
) -> tuple[list[Run], list[Entry], list[Asked]]:
    """Return what was exported and paid, the steps of one concert, and the flow runs that wait for a signature.

    Args:
        concert_id: all concerts, without their steps, when None.
    """
    with open_context(target, project_dir) as context:
        profile, manifest = context.profile, _manifest(context)
    with open_warehouse(profile) as tables:
        ledger = PayrollLedger(tables, manifest)
        runs = [run for run in ledger.runs() if concert_id in (None, run.concert_id)]
        entries = [] if concert_id is None else ledger.entries(concert_id)
    return runs, entries, waiting(target)


def export_root(target: str) -> Path:
    """Return the default folder of a target's exports."""
    return state_root(os.environ) / "payroll" / target


def _require_signed(ledger: PayrollLedger, run: Run, again: str) -> None:
    # However long ago: an export may be paid later, unless it was rejected since.
    signatures = valid(signatures_of(ledger.entries(run.concert_id)), run.checksum, kinds.now(), timedelta.max)
    if missing := missing_roles(signatures):
        raise PayrollStopped(
            f"Concert {run.concert_id} has no signature of {', '.join(missing)} any more, as it was rejected since. "
            f"Do: {again}"
        )


def _require_unchanged_export(run: Run, again: str) -> None:
    folder = Path(run.export_folder)
    if not folder.is_dir():
        current_reporter().note(f"The export {folder} is not on this machine, so its files were not checked.")
    elif changed := changed_files(folder, run.checksum):
        raise PayrollStopped(f"The export {folder} was changed after it was signed: {preview(changed)}. Do: {again}")


def _require_shared_server() -> None:
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value() is None:
        raise ConfigError(
            "Payroll needs a Prefect server that the signers can reach, and none is set up. Start one and leave it "
            "running: uv run prefect server start --background. --dry-run needs none."
        )


def _manifest(run: RunContext) -> Manifest:
    """Return the manifest of the project's current code; a machine that resumes a run has no other."""
    return list_nodes(DbtCommand("ls", "resource_type:model"), run.project, run.profile)[1]
