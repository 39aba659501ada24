"""The alerts of the receiver."""

from __future__ import annotations

import pytest

import flows.alerts
from deployments.webhook.inbox.delivery import Delivery
from deployments.webhook.start.alerts import SyncAlerts
from flows.alerts import Incident
from flows.services.airbyte.sync_health import incident_key
from tests.support.webhook.deliveries import GOOGLE_ADS


def test_a_failure_names_the_sync_and_what_was_not_built_and_its_end_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Incident] = []
    closed: list[tuple[str, str]] = []
    monkeypatch.setattr(flows.alerts, "open_incident", opened.append)
    monkeypatch.setattr(flows.alerts, "close_incident", lambda key, target: closed.append((key, target)))
    alerts = SyncAlerts(lambda: {GOOGLE_ADS: ["google_ads"]}, "prod")
    alerts.open(Delivery(GOOGLE_ADS, 7, False, name="Ads"), "The API is down")
    alerts.close(GOOGLE_ADS)
    (incident,) = opened
    assert incident.title == "Airbyte's sync 7 of Ads failed"
    assert incident.text == "The API is down Nothing was built from source google_ads."
    assert closed == [(incident.key, incident.target)] == [(incident_key(GOOGLE_ADS), "prod")]
