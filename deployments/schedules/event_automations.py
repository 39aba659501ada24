"""The automations that start the transformation on the event of a finished Airbyte sync, and their plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.schedules.declared import DeclaredDeployment
from deployments.webhook.start.prefect_cloud import NAME, cloud_documents, resource_of
from flows.services.airbyte.sync_events import DEPLOYMENT, connections_of
from infrastructure.errors import ConfigError
from infrastructure.server.automations import AutomationChange, AutomationDocument, change_of_automation
from infrastructure.workspace import workspace

if TYPE_CHECKING:
    from infrastructure.server.client import Server
_BEFORE, _, _BEHIND = resource_of("?").partition("?")


def event_documents(
    declared: Mapping[str, DeclaredDeployment],
    deployment_id: str,
    environ: Mapping[str, str],
    project: Path | None = None,
) -> list[AutomationDocument]:
    """Return an automation for each Airbyte connection that a source of the dbt project names.

    Args:
        declared: the deployments of the schedules file, by full name.
        deployment_id: of the transformation.

    Raises:
        ConfigError: the file has no such deployment, or no source names a connection.
    """
    transformation = declared.get(DEPLOYMENT)
    if transformation is None or transformation.target is None:
        raise ConfigError(f"`airbyte_events` starts {DEPLOYMENT}, which the schedules file does not have.")
    connections = connections_of(project or workspace(environ).project, environ)
    if not connections:
        raise ConfigError(
            "`airbyte_events` has no connections: no source of the dbt project names an Airbyte connection under "
            "`config: meta: airbyte_connection_id:`."
        )
    found = cloud_documents(connections, deployment_id, transformation.target).automations
    return [_whole(automation) for automation in found]


def _whole(automation: Mapping[str, Any]) -> AutomationDocument:
    """Return an automation with every field that a server returns, so that it can be compared."""
    trigger = {"match_related": {}, "after": [], **automation["trigger"]}
    actions = tuple({"schedule_after": 0.0, **action} for action in automation["actions"])
    return AutomationDocument(automation["name"], automation["description"], trigger, actions)


def plan_events(
    server: Server, documents: list[AutomationDocument], deployment_id: str | None
) -> list[AutomationChange]:
    """Compare the automations with what a server has.

    Args:
        deployment_id: of the transformation; None where the server has neither it nor an automation of ours.
    """
    changes = [change_of_automation(document, server.read_automation(document.name)) for document in documents]
    names = {it.name for it in documents}
    if deployment_id is not None:
        there = {
            it.name for it in server.client.read_automations() if _is_ours(it.model_dump(mode="json"), deployment_id)
        }
        changes += [AutomationChange(name, "remove") for name in sorted(there - names)]
    return changes


def _is_ours(automation: Mapping[str, Any], deployment_id: str) -> bool:
    """Return whether an automation was created by `apply`: it is as declared for the connection in its name.

    The name alone is no proof: an automation made by hand may begin alike, and is left alone.
    """
    resource = dict(automation["trigger"].get("match") or {}).get("prefect.resource.id")
    starts = [action.get("deployment_id") for action in automation["actions"]]
    name = str(automation["name"])
    connection = str(resource or "").removeprefix(_BEFORE).removesuffix(_BEHIND)
    is_made_for_it = resource == resource_of(connection) and name.endswith(f"-{connection}")
    return name.startswith(f"{NAME}-") and is_made_for_it and starts == [deployment_id]
