"""The escalation clock: who hears after how long, and what stops it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from click.testing import CliRunner

from flows.__main__ import main
from flows.alerts import Incident, close_incident, open_incident
from flows.alerts.escalation import escalate, start_clock
from flows.alerts.incident_store import store_of
from flows.alerts.routes import load_routes
from infrastructure.workspace import EXAMPLE
from tests.support.alert_receivers import Receiver, WriteRoutes, headers

KEY = "dbt/test.orchestra.adds_up"
STEPS = [{"after_minutes": 15, "owner": "Data Engineer"}, {"after_minutes": 30, "owner": "Senior Data Engineer"}]
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def test_nobody_who_acknowledges_is_escalated_step_by_step(routes: WriteRoutes, team: Receiver, fresh: str) -> None:
    routes(escalation=STEPS)
    open_incident(Incident(KEY, "critical", "adds_up failed: 3 rows", target=fresh))
    assert escalate(fresh, at(60)) == [], "no clock runs by itself"
    assert start_clock([KEY, "dbt/unknown"], fresh, at(0)) == [KEY]
    start_clock([KEY], fresh, at(10))
    assert escalate(fresh, at(14)) == []
    assert [incident.owners for incident in escalate(fresh, at(16))] == [("Data Engineer",)]
    escalate(fresh, at(20))
    assert len(escalate(fresh, at(31))) == 2
    late = [f"🔴 {fresh}: Not acknowledged for {minutes} minutes: adds_up failed: 3 rows" for minutes in (15, 30)]
    assert headers(team) == [f"🔴 {fresh}: adds_up failed: 3 rows", *late]

    done = CliRunner().invoke(main, ["alerts", "acknowledge", "--all", "--target", fresh, "--who", "Ada"])
    assert done.exit_code == 0 and "1 incident of" in done.output, done.output
    assert escalate(fresh, at(120)) == []
    entry = store_of(fresh, os.environ).read().incidents[KEY]
    assert (entry.acknowledged_by, entry.closed_at) == ("Ada", None)
    assert all(key == KEY for key in store_of(fresh, os.environ).read().incidents), (
        "the steps are over, and were told so"
    )


def test_the_clock_stops_when_the_test_passes_and_starts_anew_when_it_fails_again(
    routes: WriteRoutes, team: Receiver, fresh: str
) -> None:
    routes(escalation=STEPS)
    open_incident(Incident(KEY, "critical", "adds_up failed", target=fresh))
    start_clock([KEY], fresh, at(0))
    assert escalate(fresh, at(16))
    close_incident(KEY, fresh)
    assert escalate(fresh, at(17)) == []
    assert headers(team)[-1].startswith(f"🟢 {fresh}: recovered: Not acknowledged for")
    open_incident(Incident(KEY, "critical", "adds_up failed", target=fresh))
    assert escalate(fresh, at(60)) == []


def test_the_steps_of_the_projects_own_routes_are_those_of_the_runbook() -> None:
    steps = [(step.after_minutes, step.owner) for step in load_routes(EXAMPLE.routes).escalation]
    assert steps == [(15, "Data Engineer"), (30, "Senior Data Engineer"), (60, "Engineering Manager")]
