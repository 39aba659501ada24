"""Which automations a plan removes: those that were made here, and none that only bears such a name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from deployments.schedules.event_automations import plan_events
from deployments.webhook.start.prefect_cloud import cloud_documents


class Automation:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.name = document["name"]

    def model_dump(self, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return self._document


def test_an_automation_of_somebody_else_stays_though_its_name_begins_as_ours_and_it_starts_the_same() -> None:
    deployment, connection = str(uuid4()), str(uuid4())
    (ours,) = cloud_documents({connection: ["google_ads"]}, deployment, "prod").automations
    by_hand = {**ours, "name": "airbyte-syncs-of-marketing", "trigger": {"match": {"prefect.resource.id": "mine.*"}}}
    renamed = {**ours, "name": f"airbyte-syncs-google_ads-{uuid4()}"}
    elsewhere = {**ours, "actions": [{**ours["actions"][0], "deployment_id": str(uuid4())}]}
    timed = {**ours, "name": "airbyte-syncs-nightly", "trigger": {"type": "event", "match": {}}}
    there = [Automation(each) for each in (ours, by_hand, renamed, elsewhere, timed)]
    server: Any = SimpleNamespace(client=SimpleNamespace(read_automations=lambda: there))
    assert [(change.name, change.action) for change in plan_events(server, [], deployment)] == [
        (ours["name"], "remove")
    ]
