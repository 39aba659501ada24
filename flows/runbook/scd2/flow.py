"""Repair keys with several current versions: show the plan, get it confirmed, apply it, test it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prefect import flow
from prefect.input import RunInput
from pydantic import Field

from flows.alerts.hooks import with_alerts
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import current_flow_run, flow_run_name, is_on_its_own, open_context
from flows.engine.target.file_lock import one_writer
from flows.pipelines import tasks
from flows.report.artifacts import attaching, key_of
from flows.runbook.kept_tables import KeptTables
from flows.runbook.project_tables import Versions, read_declared
from flows.runbook.scd2.plan import RowChange, digest_of
from flows.runbook.scd2.repairs import Repairs, table_rows
from flows.warehouses.door import open_warehouse
from infrastructure.commands import program
from infrastructure.errors import ConfigError
from infrastructure.plain_text import markdown_text

if TYPE_CHECKING:
    from flows.engine.context.project import Project
    from infrastructure.profiles import Profile

# How long a run waits for a confirmation.
ANSWER_SECONDS = 24 * 3600
_LOOK_SECONDS = 2

Mode = Literal["show", "ask", "apply"]


class RepairAnswer(RunInput):
    """The answer to a proposed repair."""

    apply: bool = Field(default=False, description="Whether to apply the repair that the run's table shows.")
    who: str = Field(min_length=1, description="Your name; it is kept with the repair.")
    comment: str = Field(default="", description="A comment for later readers.")


@dataclass(frozen=True)
class RepairReport:
    """The result of a search for keys with several current versions.

    Attributes:
        changes: the change to every version of these keys.
        digest: identifies the plan; pass it back to apply exactly this plan.
        repair_id: for undoing it; None where nothing was done.
        looked_at: how many tables of versions exist.
    """

    target: str
    outcome: Literal["nothing to do", "shown", "declined", "applied", "undone"]
    changes: tuple[RowChange, ...] = ()
    digest: str = ""
    repair_id: str | None = None
    tests: DbtResult | None = None
    looked_at: int = 0

    @property
    def keys(self) -> int:
        """Return how many keys have changes."""
        return len({(change.table, change.key) for change in self.changes})

    def sentence(self) -> str:
        """Return the result in one sentence."""
        if self.outcome == "nothing to do":
            if not self.looked_at:
                return f"There is no table of versions on target {self.target}, so none was checked: nothing to do."
            return f"No key on target {self.target} has more than one current version: nothing to do."
        if self.outcome == "undone":
            return f"The repair {self.repair_id} on target {self.target} is undone: the old rows are restored."
        did = {
            "shown": "Nothing was changed yet.",
            "declined": "The repair was declined, and nothing was changed.",
            "applied": f"They are repaired; undo it with: {program()} scd2-repair --target {self.target} "
            f"--undo {self.repair_id}",
        }[self.outcome]
        return f"{self.keys} keys on target {self.target} had more than one current version. {did}"


@with_alerts
@flow(flow_run_name=flow_run_name("scd2-repair"), validate_parameters=True)
def scd2_repair(
    target: str = "dev",
    select: str | None = None,
    project_dir: str | None = None,
    mode: Mode = "ask",
    confirmed: str | None = None,
    undo: str | None = None,
    force: bool = False,
) -> RepairReport:
    """Find keys with several current versions, and keep the right one current; safe to repeat.

    It checks models with `meta: {scd2: …}`, and snapshots.

    Args:
        select: dbt selection of models and snapshots; all when None.
        mode: show the repair; ask, by suspending the run until it is answered; or apply it at once.
        confirmed: apply it only if the plan has this digest.
        undo: restore the rows that this repair changed, instead of a new repair.
        force: undo also where the rows were changed again since.

    Raises:
        DriftError: the tables changed between the plan and its confirmation.
        DbtRunFailed: a test of a repaired table fails. The repair is kept, and can be undone.
        ConfigError: a declaration is incomplete, or a table would still have faults afterwards. Nothing was changed.
    """
    with open_context(target, project_dir) as run, one_writer(target, holder=run.holder):
        project, profile = run.project, run.profile
        found = read_declared(project, profile, select).versions()
        if undo is not None:
            return _undone(project, profile, found, undo, force)
        with open_warehouse(profile) as tables:
            repairs = Repairs(tables, KeptTables(tables, profile))
            changes = [change for versions in found for change in repairs.propose(versions)]
            there = sum(tables.exists(versions.relation) for versions in found)
        report = RepairReport(
            target, "shown" if changes else "nothing to do", tuple(changes), digest_of(changes), looked_at=there
        )
        _publish(report)
        if changes and mode == "apply":
            return _applied(project, profile, found, confirmed)
    if not changes or mode == "show":
        return report
    # The target is not locked while a person decides.
    if not _answer(report).apply:
        return RepairReport(target, "declined", tuple(changes), report.digest)
    # Opened again, as secrets may have changed meanwhile.
    with open_context(target, project_dir) as run, one_writer(target, holder=run.holder):
        return _applied(run.project, run.profile, found, report.digest)


def _applied(project: Project, profile: Profile, found: Sequence[Versions], confirmed: str | None) -> RepairReport:
    with open_warehouse(profile) as tables:
        repairs = Repairs(tables, KeptTables(tables, profile))
        damaged = [versions for versions in found if repairs.propose(versions)]
        repair_id, changes = repairs.apply(damaged, confirmed)
    report = RepairReport(profile.target, "applied", tuple(changes), digest_of(changes), repair_id)
    current_reporter().note(report.sentence())
    _publish(report)
    # dbt needs the DuckDB file now.
    tests = _tested(project, profile, [versions.name for versions in damaged])
    return RepairReport(profile.target, "applied", tuple(changes), report.digest, repair_id, tests)


def _undone(project: Project, profile: Profile, found: Sequence[Versions], repair_id: str, force: bool) -> RepairReport:
    with open_warehouse(profile) as tables:
        Repairs(tables, KeptTables(tables, profile)).undo(repair_id, found, force)
    return RepairReport(profile.target, "undone", repair_id=repair_id)


def _tested(project: Project, profile: Profile, names: Sequence[str]) -> DbtResult:
    return tasks.test(profile.target, " ".join(names), project_dir=str(project.folder))


def _answer(report: RepairReport) -> RepairAnswer:
    """Suspend the run until it is answered; a run without a deployment waits in its process."""
    from prefect.flow_runs import pause_flow_run, suspend_flow_run

    if current_flow_run() is None:
        raise ConfigError("mode='ask' needs a flow run: give mode='show' or mode='apply'.")
    form = RepairAnswer.with_initial_data(description=_markdown(report))
    # Named after the plan's digest: the answer is for this plan and no other.
    if is_on_its_own():
        return pause_flow_run(
            wait_for_input=form, timeout=ANSWER_SECONDS, poll_interval=_LOOK_SECONDS, key=report.digest
        )
    return suspend_flow_run(wait_for_input=form, timeout=ANSWER_SECONDS, key=report.digest)


def _markdown(report: RepairReport) -> str:
    rows = table_rows(report.changes)
    names = list(rows[0])
    lines = [
        markdown_text(report.sentence()),
        "",
        f"| {' | '.join(map(markdown_text, names))} |",
        f"|{' --- |' * len(names)}",
    ]
    lines += [f"| {' | '.join(markdown_text(str(row[name])) for name in names)} |" for row in rows[:50]]
    if len(rows) > 50:
        lines += ["", f"and {len(rows) - 50} more; all are in the run's artifacts."]
    return "\n".join(lines)


def _publish(report: RepairReport) -> None:
    from prefect.artifacts import create_table_artifact

    if not report.changes:
        return
    with attaching():
        rows = [dict(row) for row in table_rows(report.changes)]
        create_table_artifact(rows, key=key_of("scd2-repair", report.target), description=report.sentence())
