"""The health flows on a real warehouse and server: what is measured, judged, told and raised."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from flows.alerts.incident_store import store_of
from flows.history.health_rules import FAILED, NOT_RUN, PASSED
from flows.pipelines.full import dbt_full_pipeline
from flows.runbook.health.flow import HealthReport, check_transform_health, late_runs, morning_health_check
from infrastructure.errors import HealthCheckFailed
from tests.support.prefect_api import SetUpTarget
from tests.support.projects import PROJECTS, deliver
from tests.support.recorded import Recorded

SAID = {"normal": "It is well.", "action": "Mend it."}


def thresholds(folder: Path, **checks: dict[str, object]) -> str:
    (folder / "health.yml").write_text(yaml.safe_dump({name: check | SAID for name, check in checks.items()}))
    return str(folder / "health.yml")


@pytest.fixture(scope="module")
def healthy(prefect_server: str, set_up_target: SetUpTarget, tmp_path_factory: pytest.TempPathFactory) -> HealthReport:
    """Build a project, and check it in the morning."""
    target, project = set_up_target(), str(PROJECTS / "shop")
    dbt_full_pipeline(target=target, project_dir=project)
    limits = thresholds(
        tmp_path_factory.mktemp("limits"),
        last_run={"warn_hours": 1, "fail_hours": 2},
        tests={"select": "customers"},
        row_counts={"select": "customers orders"},
        schedule_lateness={"warn_minutes": 1, "fail_minutes": 2},
    )
    return morning_health_check(target, project, limits)


def test_what_is_healthy_passes_with_figures_from_the_warehouse(healthy: HealthReport) -> None:
    assert {checked.name: checked.finding.outcome for checked in healthy.checks} == dict.fromkeys(
        ("last_run", "tests", "row_counts", "schedule_lateness"), PASSED
    )
    found = {checked.name: checked.finding.found for checked in healthy.checks}
    assert found["row_counts"] == "All 2 tables are of their usual size. 2 have too few counts to compare."
    assert healthy.sentence() == f"Health of target {healthy.target}: 4 passed."


def test_what_is_unhealthy_or_could_not_be_checked_fails_the_run_and_opens_incidents(
    prefect_server: str, set_up_target: SetUpTarget, tmp_path: Path
) -> None:
    target = set_up_target()
    deliver(target, hours_ago=48)
    limits = thresholds(
        tmp_path,
        source_freshness={"warn_hours": 1, "fail_hours": 2, "severity": "critical"},
        row_counts={"select": "tag:nothing_has_it"},
        tests={"select": "kinds"},
        last_run={"warn_hours": 1, "fail_hours": 2},
    )
    state = check_transform_health(target, str(PROJECTS / "orchard"), limits, return_state=True)
    assert state.is_failed()
    error = state.result(raise_on_failure=False)
    assert isinstance(error, HealthCheckFailed)
    assert {checked.name: checked.finding.outcome for checked in error.report.checks} == {
        "source_freshness": FAILED,
        "row_counts": NOT_RUN,
        "tests": NOT_RUN,
    }, "the last run is for the morning"
    assert "1 failed, 2 could not run" in str(error)
    assert "source_freshness: 1 of 1 source is not fresh." in str(error)
    incidents = {key: entry.incident for key, entry in store_of(target, os.environ).read().incidents.items()}
    assert {"health/source_freshness", "health/row_counts", "health/tests"} <= set(incidents)
    incident = incidents["health/source_freshness"]
    assert incident.severity == "critical"
    assert "deliveries.crates is 2 days old" in incident.text
    assert "Mend it." in incident.note
    assert state.state_details.flow_run_id
    artifacts = Recorded(prefect_server, state.state_details.flow_run_id).artifacts()
    rows = json.loads(artifacts[f"health-{target}"]["data"])
    assert [row["outcome"] for row in rows] == ["failed", "could not run", "could not run"]
    assert rows[0]["what to do"] == "Mend it."


def test_no_run_is_late_on_a_target_nobody_scheduled(prefect_server: str) -> None:
    assert late_runs("nobody-scheduled-this") == []
