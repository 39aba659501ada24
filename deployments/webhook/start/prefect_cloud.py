"""Replace the receiver on Prefect Cloud: a webhook that turns each delivery into an event, and automations.

Documents only: `python -m deployments.webhook cloud` prints them for you to create. Prefect Cloud has webhooks, a
self-hosted server does not; the automations are the same on both, and are tested on a self-hosted one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.services.airbyte.sync_events import AirbyteSync, run_parameters

EVENT = "airbyte.sync.succeeded"
NAME = "airbyte-syncs"
# A sync that is delivered again within this time starts nothing; a later delivery would.
_ONCE_SECONDS = 7 * 86_400.0

# Jinja over the request, which has to give JSON; `body` is what Airbyte sends, or the flat body of a template.
# Its values are checked, so that a body can't add to the event. Anything but a success is another event, which starts
# nothing: the flow that reconciles alerts about failures, after asking Airbyte.
_TEMPLATE = """\
{%- set flat = body if body is mapping else {} -%}
{%- set sync = flat.data if flat.data is mapping else {} -%}
{%- set connection = sync.connection.id if sync.connection is mapping else flat.connectionId -%}
{%- set connection = connection | default('') | string -%}
{%- set job = (sync.jobId or flat.jobId) | default(0) | int -%}
{%- set succeeded = sync.success is sameas true or flat.status == 'succeeded' -%}
{
  "event": "airbyte.sync.{{ 'succeeded' if succeeded else 'other' }}",
  "resource": {
    "prefect.resource.id": {{ ('airbyte.connection.%s.job.%s' % (connection, job)) | lower | tojson }},
    "prefect.resource.name": {{ ('Airbyte sync %s' % job) | tojson }},
    "airbyte.connection.id": {{ connection | lower | tojson }},
    "airbyte.job.id": {{ job | string | tojson }}
  }
}
"""


@dataclass(frozen=True)
class CloudDocuments:
    """The documents to create on Prefect Cloud.

    Attributes:
        webhook: body of `POST /webhooks/`; the answer's slug is the secret end of the address to give to Airbyte.
        automations: bodies of `POST /automations/`, one per connection; Prefect allows several of one name, so look
            for the name first.
    """

    webhook: dict[str, Any]
    automations: list[dict[str, Any]]

    def as_document(self) -> dict[str, Any]:
        """Return both as JSON types."""
        return {"webhook": self.webhook, "automations": self.automations}


def cloud_documents(connections: Mapping[str, Sequence[str]], deployment_id: str, target: str) -> CloudDocuments:
    """Return the webhook, and an automation for each connection that a source names.

    Args:
        deployment_id: of the deployment that a finished sync starts.
    """
    webhook = {
        "name": NAME,
        "description": "Turns each sync that Airbyte announces into an event.",
        "template": _TEMPLATE,
        "enabled": True,
    }
    automations = [
        _automation(connection, sources, deployment_id, target) for connection, sources in sorted(connections.items())
    ]
    return CloudDocuments(webhook, automations)


def resource_of(connection: str) -> str:
    """Return the resource pattern of the events of a connection's syncs."""
    return f"airbyte.connection.{connection}.job.*"


def _automation(connection: str, sources: Sequence[str], deployment_id: str, target: str) -> dict[str, Any]:
    parameters = run_parameters([AirbyteSync(connection, 1)], {connection: sources}, target)
    # The event has the job id as text; the parameter has to be a number.
    number = {"__prefect_kind": "jinja", "template": "{{ event.resource['airbyte.job.id'] }}"}
    parameters["jobs"] = {connection: {"__prefect_kind": "json", "value": number}}
    return {
        "name": f"{NAME}-{'-'.join(sorted(sources))}-{connection}",
        "description": f"Builds what depends on {', '.join(sorted(sources))} when Airbyte has loaded it.",
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "expect": [EVENT],
            "match": {"prefect.resource.id": resource_of(connection)},
            # One count per sync: a trigger that has fired for one ignores it for the rest of the time.
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": _ONCE_SECONDS,
        },
        "actions": [
            {
                "type": "run-deployment",
                "source": "selected",
                "deployment_id": deployment_id,
                "parameters": parameters,
            }
        ],
    }
