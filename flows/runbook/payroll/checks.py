"""The checks before signatures: fresh sources, a build, every test passed, agreement to the cent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flows.engine.artifacts.results import DbtResult
from flows.engine.changed.freshness import sources_to_check
from flows.engine.context.command import DbtCommand
from flows.engine.context.events import name_in
from flows.engine.context.project import read_project
from flows.pipelines import tasks
from flows.runbook.payroll.gate import (
    SELECT,
    GatedBuild,
    GateVerdict,
    against,
    read_built,
    read_loaded_at,
    too_old,
    unproven,
    verdicts,
)
from flows.runbook.payroll.payments import Compared, Payments, read_compared, read_payments
from flows.warehouses.door import open_warehouse
from infrastructure.commands import program
from infrastructure.errors import DbtRunFailed, PayrollStopped, TributaryError
from infrastructure.plain_text import count_of
from infrastructure.profiles import load_profile

if TYPE_CHECKING:
    from infrastructure.profiles import Profile


@dataclass(frozen=True)
class PayrollEvidence:
    """The evidence that the payments are right.

    Attributes:
        loaded_at: when each source table was loaded last, as source.table.
        verdicts: of every test.
        compared: each payment beside what the source recorded, where it has recorded it.
    """

    payments: Payments
    loaded_at: Mapping[str, datetime]
    verdicts: Sequence[GateVerdict]
    compared: Sequence[Compared]


def check_payroll(
    concert_id: int, target: str, profile: Profile, project_dir: str | None, freshness_hours: float
) -> PayrollEvidence:
    """Check the sources, build, test and compare; call it while the target is locked.

    Raises:
        PayrollStopped: names every reason why the concert can't be paid.
        DbtRunFailed: dbt could not run.
    """
    loaded_at, checked_at = _fresh_sources(target, project_dir, freshness_hours)
    # All in one build, the reconciliation too: what is tested is what is paid, and nothing is built again afterwards.
    built = _built(target, project_dir)
    if stops := unproven(built):
        raise _stopped(concert_id, stops)
    with open_warehouse(profile) as tables:
        payments = read_payments(tables, built.manifest, concert_id)
        compared = read_compared(tables, built.manifest, concert_id)
    if stops := against(built, loaded_at, checked_at, freshness_hours, payments, compared):
        raise _stopped(concert_id, stops)
    by_name = {name_in(unique_id): at for unique_id, at in loaded_at.items()}
    return PayrollEvidence(payments, by_name, verdicts(built), compared)


def _fresh_sources(
    target: str, project_dir: str | None, freshness_hours: float
) -> tuple[dict[str, datetime], datetime]:
    """Return when each source table was loaded, by unique id, and when that was asked."""
    try:
        command = DbtCommand("build", SELECT)
        sources = sources_to_check(command, read_project(project_dir), load_profile(target)) or ()
        result = tasks.source_freshness(target, " ".join(sources) or None, project_dir=project_dir)
    except DbtRunFailed as exc:
        # A source beyond its own freshness is checked below, with payroll's limit.
        if not isinstance(exc.result, DbtResult):
            raise
        result = exc.result
    loaded_at = read_loaded_at(result)
    now = datetime.now(UTC)
    _, stops = too_old(result.artifacts.manifest, loaded_at, freshness_hours, now)
    if stops:
        raise PayrollStopped(
            f"The data behind payroll is too old: {'; '.join(stops)}. Sync the sources, then start payroll again: "
            f"{program()} pipeline-failure --target {target} says why they were not synced."
        )
    return loaded_at, now


def _built(target: str, project_dir: str | None) -> GatedBuild:
    try:
        return read_built(tasks.build(target, SELECT, project_dir=project_dir))
    except DbtRunFailed as exc:
        if not isinstance(exc.result, DbtResult) or not exc.result.nodes:
            raise
        stopped = PayrollStopped(f"Payroll is stopped: {'; '.join(unproven(read_built(exc.result)))}. {exc}")
        # Every node that failed is an incident already.
        stopped.is_told = True
        raise stopped from exc


def _stopped(concert_id: int, reasons: Sequence[str]) -> TributaryError:
    said = "\n".join(f"- {reason}" for reason in reasons)
    return PayrollStopped(f"Payroll of concert {concert_id} is stopped for {count_of(len(reasons), 'reason')}:\n{said}")
