from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows.services.airbyte.client import AirbyteConnection, Job
from flows.services.airbyte.sync_health import health_incident, health_of

ID = "00000000-0000-4000-8000-000000000001"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def jobs(*each: tuple[str, float]) -> list[Job]:
    """Return jobs with these statuses, that ended so many hours ago."""
    made: list[Job] = []
    for number, (status, hours) in enumerate(each, 41):
        at = NOW - timedelta(hours=hours)
        ended_at = at if status in ("failed", "succeeded", "cancelled") else None
        values: dict[str, Any] = {"status": status, "start_time": at, "last_updated_at": ended_at}
        made.append(Job(job_id=number, connection_id=ID, job_type="sync", **values))
    return made


def connection(status: str = "active") -> AirbyteConnection:
    values = {"connectionId": ID, "name": "Google Ads", "status": status, "schedule": {"scheduleType": "manual"}}
    return AirbyteConnection.model_validate(values)


@pytest.mark.parametrize(
    ("each", "settings", "state", "said"),
    [
        ([("succeeded", 1)], connection(), "well", ""),
        ([("failed", 1.5), ("succeeded", 1)], connection(), "well", ""),
        ([("failed", 1.5), ("succeeded", 1), ("incomplete", 0)], connection(), "well", ""),
        ([("succeeded", 3), ("failed", 2), ("failed", 1)], connection(), "failed", "It is failure number 2 in a row."),
        ([("succeeded", 1), ("cancelled", 0.5)], connection(), "cancelled", "sync 42 of Google Ads was cancelled"),
        ([("succeeded", 3)], connection(), "silent", "None is running: look at the connection's schedule."),
        ([("succeeded", 3), ("running", 2.5)], connection(), "silent", "Job 42 is running since 2026-11-21 09:30 UTC."),
        ([], connection(), "silent", "When the last one did is unknown, or long ago."),
        ([("succeeded", 1)], connection("inactive"), "off", "Enable it."),
        ([("failed", 1)], connection("inactive"), "failed", "Airbyte's sync 41 of Google Ads failed"),
        ([], None, "missing", f"Airbyte has no connection {ID}"),
    ],
)
def test_how_a_connection_does_follows_from_its_jobs(
    each: Sequence[tuple[str, float]], settings: AirbyteConnection | None, state: str, said: str
) -> None:
    health = health_of(ID, ["google_ads"], settings, jobs(*each), NOW, timedelta(hours=2))
    assert health.state == state
    if state != "well":
        incident = health_incident(health, "prod")
        assert said in f"{incident.title} {incident.text}"
        assert "google_ads" in incident.text
        assert (incident.key, incident.target) == (f"airbyte sync/{ID}", "prod")
