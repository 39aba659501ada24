"""The health checks as flows: measure with dbt, compare with the history, send alerts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow

from flows.alerts.hooks import with_alerts
from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.context.run_context import RunContext, flow_run_name, open_context
from flows.engine.target.file_lock import one_writer
from flows.history.health_rules import (
    BY_HISTORY,
    FAILED,
    NOT_RUN,
    PASSED,
    WARNED,
    Finding,
    schedule_lateness,
)
from flows.history.health_settings import Health, HealthCheck, Lateness, are_of_another_project, load_health
from flows.history.rows import utc
from flows.history.store import history_store
from flows.pipelines import tasks
from flows.report.artifacts import attaching, key_of
from flows.runbook.health.for_project import for_project
from flows.runbook.health.row_counts import count_rows
from infrastructure.commands import as_typed, command
from infrastructure.errors import ConfigError, DbtRunFailed, HealthCheckFailed, TributaryError, preview
from infrastructure.plain_text import one_line

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


# The checks after a transformation: quick, and only what a transformation can change.
AFTER_TRANSFORMATION = ("source_freshness", "tests", "row_counts", "transformation_lag")


@dataclass(frozen=True)
class CheckResult:
    """A check, its thresholds, and its finding."""

    name: str
    check: HealthCheck
    finding: Finding


@dataclass(frozen=True)
class HealthReport:
    """What every check found on one target.

    Attributes:
        left_out: checks that were not made, because the project has nothing that they look at.
    """

    target: str
    checked_at: datetime
    checks: tuple[CheckResult, ...]
    left_out: tuple[str, ...] = ()

    @property
    def unhealthy(self) -> list[CheckResult]:
        """Return the checks that need action."""
        return [checked for checked in self.checks if not checked.finding.is_healthy]

    def sentence(self) -> str:
        """Return how many checks ended how."""
        outcomes = [checked.finding.outcome for checked in self.checks]
        parts = [f"{outcomes.count(name)} {name}" for name in (PASSED, WARNED, FAILED, NOT_RUN) if name in outcomes]
        names = ", ".join(name.replace("_", " ") for name in self.left_out)
        without = f" Left out, as the project has nothing for it: {names}." if names else ""
        return f"Health of target {self.target}: {', '.join(parts)}.{without}"


@with_alerts
@flow(flow_run_name=flow_run_name("transform-health"))
def check_transform_health(
    target: str = "dev", project_dir: str | None = None, thresholds: str | None = None
) -> HealthReport:
    """Check what a transformation can break: freshness, the last test results, row counts, lag.

    Args:
        thresholds: a file like flows/history/health.yml. When None, that of the workspace is used, else the former,
            without the checks that the project has nothing for.

    Raises:
        HealthCheckFailed: a check failed or could not run; each is an incident.
    """
    return _check(target, project_dir, thresholds, AFTER_TRANSFORMATION, test=False)


@with_alerts
@flow(flow_run_name=flow_run_name("morning-health"))
def morning_health_check(
    target: str = "dev", project_dir: str | None = None, thresholds: str | None = None
) -> HealthReport:
    """Check everything, after running the tests that the thresholds name; once every business day.

    Args and raises: as `check_transform_health`.
    """
    return _check(target, project_dir, thresholds, tuple(Health.model_fields), test=True)


def _check(
    target: str, project_dir: str | None, thresholds: str | None, names: Sequence[str], test: bool
) -> HealthReport:
    health = load_health(Path(thresholds) if thresholds else None)
    with open_context(target, project_dir) as run, one_writer(target, holder=run.holder):
        left_out: tuple[str, ...] = ()
        if thresholds is None and are_of_another_project(run.project.folder):
            # What it has no manifest for was never built, which a check says.
            with suppress(ConfigError):
                health, left_out = for_project(health, Artifacts(run.state.target_path).manifest)
        wanted = {name: check for name, check in health.checks().items() if name in names}
        broken = _measure(run, health, wanted, test)
        with history_store(os.environ).reading(run.state.project, target) as history:
            now = datetime.now(UTC)
            checks = tuple(
                CheckResult(name, check, broken.get(name) or _judge(history, name, check, target, now))
                for name, check in wanted.items()
            )
    report = HealthReport(target, now, checks, tuple(name for name in left_out if name in names))
    _tell(report)
    if report.unhealthy:
        reasons = "; ".join(f"{checked.name}: {checked.finding.found}" for checked in report.unhealthy)
        raise HealthCheckFailed(f"{report.sentence()} {reasons}", report)
    return report


def _measure(run: RunContext, health: Health, wanted: Mapping[str, HealthCheck], test: bool) -> dict[str, Finding]:
    """Run what the checks need, and return those that could not run because of it."""
    target, place = run.target, str(run.project.folder)
    broken: dict[str, Finding] = {}

    def attempt(names: Sequence[str], how: str, work: Callable[[], object]) -> None:
        asked = [name for name in names if name in wanted]
        if not asked:
            return
        try:
            work()
        except DbtRunFailed as exc:
            # Failed nodes are findings; a dbt command that did not finish has not measured all of them.
            if exc.finished_result is None:
                broken.update({name: Finding(NOT_RUN, one_line(str(exc)), how) for name in asked})
        except TributaryError as exc:
            broken.update({name: Finding(NOT_RUN, one_line(str(exc)), how) for name in asked})

    attempt(
        ("source_freshness", "transformation_lag"),
        "dbt source freshness",
        lambda: tasks.source_freshness(target, project_dir=place),
    )
    if test:
        by_tests = ("tests", "scd2_integrity", "reconciliation")
        selections = [check.select for name in by_tests if (check := getattr(health, name)) is not None]
        attempt(by_tests, "dbt test", lambda: tasks.test(target, " ".join(selections), project_dir=place))
    if health.row_counts:
        select = health.row_counts.select
        attempt(("row_counts",), "dbt show", lambda: count_rows(run, select))
    return broken


def _judge(history: DuckDBPyConnection, name: str, check: HealthCheck, target: str, now: datetime) -> Finding:
    moment = utc(now)
    try:
        if isinstance(check, Lateness):
            return schedule_lateness(history, check, moment, late_runs(target))
        return BY_HISTORY[name](history, check, moment)
    except Exception as exc:  # noqa: BLE001  (whatever kept it from being made: silence would look like health)
        return Finding(NOT_RUN, f"The check raised an error: {one_line(str(exc))}", "the history")


def late_runs(target: str) -> list[tuple[str, datetime]]:
    """Return the scheduled runs on a target that should have begun, from the Prefect server: name, and when."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateName

    late = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"])))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=late, limit=200)
    return [
        (run.name, utc(run.expected_start_time))
        for run in runs
        if run.expected_start_time and (run.parameters or {}).get("target", target) == target
    ]


def _tell(report: HealthReport) -> None:
    from flows.alerts import Incident, close_incident, open_incident

    for checked in report.checks:
        key = f"health/{checked.name}"
        if checked.finding.is_healthy:
            close_incident(key, report.target)
            continue
        text = "\n".join([checked.finding.found, *checked.finding.items, "", f"Normal: {checked.check.normal}"])
        open_incident(
            Incident(
                key=key,
                severity=checked.check.severity,
                title=f"{checked.name.replace('_', ' ')} {checked.finding.outcome}",
                text=text,
                target=report.target,
                retry_command=command(f"health --target {report.target}"),
                note=f"What to do: {as_typed(checked.check.action)}",
            )
        )
    _publish(report)


def table_rows(report: HealthReport) -> list[dict[str, Any]]:
    """Return a row per check, with those first that need action."""
    order = (FAILED, NOT_RUN, WARNED, PASSED)
    return [
        {
            "outcome": checked.finding.outcome,
            "check": checked.name.replace("_", " "),
            "found": checked.finding.found,
            "what": preview(checked.finding.items),
            "normal": checked.check.normal,
            "what to do": "" if checked.finding.outcome == PASSED else as_typed(checked.check.action),
            "method": checked.finding.method,
        }
        for checked in sorted(report.checks, key=lambda checked: order.index(checked.finding.outcome))
    ]


def _publish(report: HealthReport) -> None:
    from prefect.artifacts import create_table_artifact

    with attaching():
        create_table_artifact(table_rows(report), key=key_of("health", report.target), description=report.sentence())
