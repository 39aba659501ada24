"""The variant without a receiver: what the template makes of a delivery, and what the automations make of that."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from jinja2.sandbox import SandboxedEnvironment

from deployments.webhook.start.prefect_cloud import cloud_documents
from tests.support.prefect_api import ask, post
from tests.support.processes import wait_until
from tests.support.webhook.deliveries import FACEBOOK_ADS, GOOGLE_ADS, STRANGER, flat, notification
from tests.support.webhook.receiver import Deployment

CONNECTIONS = {GOOGLE_ADS: ["google_ads"], FACEBOOK_ADS: ["facebook_ads"]}


def event(document: Any) -> dict[str, Any]:
    """Return the event that Prefect Cloud would make of a delivery."""
    template = cloud_documents({}, "", "").webhook["template"]
    text = SandboxedEnvironment().from_string(template).render(body=document, headers={}, method="POST")
    return json.loads(text)


def test_both_shapes_make_the_same_event() -> None:
    made = event(notification(job_id=7))
    assert made == event(flat(jobId="7"))
    assert made["event"] == "airbyte.sync.succeeded"
    assert made["resource"] == {
        "prefect.resource.id": f"airbyte.connection.{GOOGLE_ADS}.job.7",
        "prefect.resource.name": "Airbyte sync 7",
        "airbyte.connection.id": GOOGLE_ADS,
        "airbyte.job.id": "7",
    }


@pytest.mark.parametrize(
    "document", [notification(success=False), flat(status="failed"), {"text": "hello"}, {"data": 1}, [], "x", None]
)
def test_what_is_no_success_is_another_event(document: Any) -> None:
    assert event(document)["event"] == "airbyte.sync.other"


def test_a_body_can_not_add_to_the_event() -> None:
    made = event(notification(connection_id='x", "airbyte.job.id": "1', job_id='2", "a": "b'))
    assert set(made["resource"]) == {
        "prefect.resource.id",
        "prefect.resource.name",
        "airbyte.connection.id",
        "airbyte.job.id",
    }
    assert made["resource"]["airbyte.job.id"] == "0"


def test_three_deliveries_of_a_sync_start_one_run(deployment: Deployment) -> None:
    """On a Prefect server of one's own, which has the automations of Prefect Cloud and only lacks its webhooks."""
    documents = cloud_documents(CONNECTIONS, deployment.id, "prod")
    said = [notification(job_id=job) for job in (5, 5, 6, 5)] + [notification(STRANGER, job_id=7)]
    said.append(notification(job_id=8, success=False))
    made = [post(deployment.api, "/automations/", one) for one in documents.automations]
    try:
        for document in said:
            one = {**event(document), "id": str(uuid4()), "occurred": datetime.now(UTC).isoformat()}
            ask("POST", f"{deployment.api}/events", json=[{**one, "payload": {}}])
        wait_until(lambda: len(deployment.runs()) >= 2, "the automation fires")
    finally:
        for automation in made:
            ask("DELETE", f"{deployment.api}/automations/{automation['id']}")
    runs = {json.dumps(run["parameters"]["jobs"]): run["parameters"] for run in deployment.runs()}
    assert len(deployment.runs()) == 2
    assert [runs[key]["jobs"] for key in sorted(runs)] == [{GOOGLE_ADS: 5}, {GOOGLE_ADS: 6}]
    assert all(parameters["source"] == ["google_ads"] for parameters in runs.values())
