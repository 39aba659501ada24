"""Show what the payroll of a concert would do: read only, without a build, a question or a write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from flows.runbook.payroll.archive import archive_name
from flows.runbook.payroll.gate import SELECT, tests_of, without_critical_test
from flows.runbook.payroll.ledger import PayrollLedger, now, signatures_of
from flows.runbook.payroll.payments import RECONCILIATION, faults, read_compared, read_payments, relation_of
from flows.runbook.payroll.signoff import ROLES, missing_roles, valid
from flows.warehouses.door import open_warehouse
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from flows.engine.artifacts.manifest import Manifest
    from flows.engine.context.project import Project
    from infrastructure.profiles import Profile


@dataclass(frozen=True)
class Planned:
    """What would be done, a line each, and what already stops it.

    Attributes:
        stops: reasons in the current data why it would stop before the signatures.
    """

    concert_id: int
    target: str
    steps: Sequence[str]
    stops: Sequence[str]


def plan_payroll(
    concert_id: int, target: str, profile: Profile, project: Project, manifest: Manifest, root: Path, lasts: timedelta
) -> Planned:
    """Return what pre_payroll would do."""
    tests = tests_of(manifest)
    critical = sum(test.is_critical for test in tests)
    steps = [
        f"check the freshness of the sources of {project.name} that payroll depends on",
        f"dbt build --select {SELECT} on {target}",
        f"confirm that {count_of(len(tests), 'test')} ran and passed, {critical} of them critical",
        f"compare every payment of concert {concert_id} with what the source recorded",
    ]
    stops = without_critical_test(manifest)
    missing = list(ROLES)
    with open_warehouse(profile) as tables:
        ledger = PayrollLedger(tables, manifest)
        run = ledger.run(concert_id)
        if run and run.paid_at:
            stops.append(f"it has been paid: {run.paid_total} on {run.payment_date}")
        if not ledger.has_payments() or not tables.exists(relation_of(manifest, RECONCILIATION)):
            steps.append("the payments are unknown: nothing has been built yet")
        else:
            payments = read_payments(tables, manifest, concert_id)
            stops += faults(payments, read_compared(tables, manifest, concert_id))
            signatures = valid(signatures_of(ledger.entries(concert_id)), payments.checksum, now(), lasts)
            missing = missing_roles(signatures)
            steps.append(
                f"as things stand, {count_of(len(payments.rows), 'musician')} and {payments.total:,.2f} in all, "
                f"checksum {payments.checksum[:12]}"
            )
    steps.append(f"wait for signatures of: {', '.join(missing)}" if missing else "all have signed this data already")
    steps.append(f"archive the payments as {archive_name(manifest, datetime.now(UTC).date())}")
    steps.append(f"export CSV and Parquet to {root}")
    return Planned(concert_id, target, tuple(steps), tuple(stops))
