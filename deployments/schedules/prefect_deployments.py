"""The deployments, work pools and late-run automations of a Prefect server or a Prefect Cloud workspace.

Importing this module imports Prefect: do it where a server is needed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags, FlowFilter, FlowFilterId
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from deployments.schedules.declared import DeclaredDeployment
from deployments.schedules.event_automations import event_documents, plan_events
from deployments.schedules.needed_services import with_their_services
from deployments.schedules.plan import (
    ComparedDeployment,
    DeploymentChange,
    LateChange,
    PoolChange,
    Saved,
    SavedPool,
    plan_deployments,
    plan_late,
    plan_pool,
    schedule_text,
    used_pools,
)
from deployments.schedules.schedule_models import Schedules
from flows.services.airbyte.sync_events import DEPLOYMENT
from infrastructure.blocks.documents import Reference
from infrastructure.errors import ConfigError
from infrastructure.plan import Plan
from infrastructure.server.automations import (
    AutomationChange,
    AutomationDocument,
    change_of_automation,
    is_of_resumes,
    late_document,
    resume_documents,
)
from infrastructure.server.client import Server

_PAGE = 200
# The placeholder for the id of a deployment that does not exist yet.
_NO_ID = UUID(int=0)


def read_saved(server: Server, marker: str, names: Collection[str] = ()) -> list[Saved]:
    """Return the deployments with a marker, and those with one of the names but without it."""
    client = server.client
    found: dict[UUID, DeploymentResponse] = {}
    marked = DeploymentFilter(tags=DeploymentFilterTags(all_=[marker]))
    while page := client.read_deployments(deployment_filter=marked, limit=_PAGE, offset=len(found)):
        found |= {deployment.id: deployment for deployment in page}
    flow_names: dict[UUID, str] = {}
    flow_ids = list({deployment.flow_id for deployment in found.values()})
    if flow_ids:
        flows = client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=flow_ids)), limit=_PAGE)
        flow_names = {flow.id: flow.name for flow in flows}
    saved = [_saved(deployment, flow_names.get(deployment.flow_id, "?"), marker) for deployment in found.values()]
    there = {deployment.full_name for deployment in saved}
    for name in names:
        if name in there:
            continue
        try:
            saved.append(_saved(client.read_deployment_by_name(name), name.partition("/")[0], marker))
        except ObjectNotFound:
            continue
    return saved


def _saved(deployment: DeploymentResponse, flow_name: str, marker: str) -> Saved:
    options = deployment.concurrency_options
    limit = deployment.global_concurrency_limit
    parameters = dict(deployment.parameters)
    compared = ComparedDeployment(
        entrypoint=deployment.entrypoint,
        description=deployment.description,
        schedules=[
            schedule_text(it.schedule.cron, it.schedule.timezone, it.active)
            if isinstance(it.schedule, CronSchedule)
            else f"{type(it.schedule).__name__} {it.schedule.model_dump_json(exclude_none=True)}"
            for it in deployment.schedules
        ],
        paused=deployment.paused,
        parameters=parameters,
        parameter_schema=deployment.parameter_openapi_schema or {},
        enforces_schema=deployment.enforce_parameter_schema,
        tags=deployment.tags,
        limit=cast(Any, limit).limit if limit else None,
        when_busy=options.collision_strategy.value if options else None,
        work_pool=deployment.work_pool_name,
        job_variables=deployment.job_variables,
        pull_steps=deployment.pull_steps or [],
    )
    target = parameters.get("target")
    return Saved(
        id=str(deployment.id),
        full_name=f"{flow_name}/{deployment.name}",
        target=target if isinstance(target, str) else None,
        is_ours=marker in deployment.tags,
        fields=compared.fields(),
    )


def plan(
    server: Server,
    schedules: Schedules,
    declared: Sequence[DeclaredDeployment],
    *,
    prune: bool,
    target: str | None = None,
) -> Plan:
    """Compare the schedules file with a server; change nothing.

    Raises:
        ConfigError: a work pool has another type on the server, or the file has no deployment of the target.
    """
    if target is not None and not any(deployment.target == target for deployment in declared):
        there = sorted({deployment.target for deployment in declared if deployment.target})
        raise ConfigError(f"The schedules file has no deployment of target {target!r}; it has {', '.join(there)}.")
    saved = read_saved(server, schedules.marker, [it.full_name for it in declared])
    declared, notes = with_their_services(server, declared, [it.full_name for it in saved])
    pools = [
        plan_pool(name, pool, _read_pool(server, name))
        for name, pool in used_pools(schedules, declared, target).items()
    ]
    changes = plan_deployments(declared, saved, prune=prune, target=target)
    tellable = _destinations(server)
    late = [late for change in changes if (late := _plan_late(server, schedules, change, tellable))]
    wanting = [it.full_name for change in changes if (it := change.declared) and it.late_after_seconds]
    events = _plan_events(server, schedules, declared, saved, target)
    resumed = _plan_resumes(server, schedules, declared) if target is None else []
    if wanting and not any(tellable):
        notes.append(
            f"No alert is sent when runs of {', '.join(wanting)} are late: the server has neither the block "
            "webhook/slack-webhook nor pager-duty-webhook/pagerduty. Set them up with infrastructure.setup_profiles."
        )
    return Plan((*pools, *changes, *late, *events, *resumed), tuple(notes))


def _plan_events(
    server: Server,
    schedules: Schedules,
    declared: Sequence[DeclaredDeployment],
    saved: Sequence[Saved],
    target: str | None,
) -> list[AutomationChange]:
    """Compare the automations of events with the server; their deployment stands for their target."""
    by_name = {it.full_name: it for it in declared}
    starts = by_name.get(DEPLOYMENT)
    if target is not None and (starts is None or starts.target != target):
        return []
    deployment_id = next((it.id for it in saved if it.full_name == DEPLOYMENT), None)
    documents = event_documents(by_name, deployment_id or str(_NO_ID), os.environ) if schedules.airbyte_events else []
    return plan_events(server, documents, deployment_id)


def _plan_resumes(
    server: Server, schedules: Schedules, declared: Sequence[DeclaredDeployment]
) -> list[AutomationChange]:
    """Compare the automations by which killed runs go on with the server; they are for all deployments of the file."""
    documents = resume_documents(schedules.owner, schedules.marker, [it.resume_after_crash for it in declared])
    changes = [change_of_automation(document, server.read_automation(document.name)) for document in documents]
    wanted = {document.name for document in documents}
    gone = sorted(_resumes_there(server, schedules.owner) - wanted)
    return [*changes, *(AutomationChange(name, "remove") for name in gone)]


def _resumes_there(server: Server, owner: str) -> set[str]:
    return {it.name for it in server.client.read_automations() if is_of_resumes(it.name, f"{owner} schedules: ")}


def _apply_automations(server: Server, planned: Plan, ids: Mapping[str, str]) -> None:
    for change in planned.only(AutomationChange):
        if change.action == "remove":
            server.delete_automation(change.name)
        elif change.is_change and (document := change.document):
            # The id of a deployment to start is known only now.
            actions = tuple(
                {**action, "deployment_id": ids[DEPLOYMENT]} if "deployment_id" in action else action
                for action in document.actions
            )
            server.save_automation(replace(document, actions=actions), change.saved)


def apply(server: Server, schedules: Schedules, planned: Plan) -> dict[str, str]:
    """Apply a plan: pools, then deployments, then their automations; return ids by full name."""
    for pool in planned.only(PoolChange):
        if pool.is_change:
            _save_pool(server, pool)
    ids: dict[str, str] = {}
    for change in planned.only(DeploymentChange):
        if change.declared and change.is_change:
            ids[change.name] = save(server, change.declared)
        elif change.saved:
            ids[change.name] = change.saved.id
    tellable = _destinations(server)
    for late in planned.only(LateChange):
        _apply_late(server, schedules, late, planned, ids, tellable)
    _apply_automations(server, planned, ids)
    for change in planned.only(DeploymentChange):
        if change.action == "remove" and change.saved:
            remove(server, change.saved)
    return ids


def save(server: Server, declared: DeclaredDeployment) -> str:
    """Create a deployment, or update the one of its name; return its id.

    Every field is sent, as the server keeps those that are not.

    Raises:
        ConfigError: the server refuses it, such as for job variables that its work pool does not accept.
    """
    client = server.client
    flow_id = client.create_flow_from_name(declared.flow_name)
    schedule = {"cron": declared.cron, "timezone": declared.time_zone} if declared.cron else None
    body = {
        "name": declared.name,
        "flow_id": str(flow_id),
        "entrypoint": declared.entrypoint,
        "path": None,
        "description": declared.description,
        "schedules": [{"schedule": schedule, "active": True}] if schedule else [],
        "paused": declared.paused,
        "parameters": declared.parameters,
        "parameter_openapi_schema": declared.parameter_schema,
        "enforce_parameter_schema": True,
        "tags": list(declared.tags),
        "concurrency_limit": declared.limit,
        "concurrency_options": {"collision_strategy": declared.when_busy} if declared.limit else None,
        "work_pool_name": declared.work_pool,
        "job_variables": declared.job_variables,
        "pull_steps": list(declared.pull_steps),
    }
    try:
        answer = client.request("POST", "/deployments/", json=body)
    except httpx.HTTPStatusError as exc:
        if exc.response.status_code not in (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY):
            raise
        # A deployment contains no secrets, so that the server's answer may be shown.
        raise ConfigError(
            f"The Prefect server refuses the deployment {declared.full_name}: {exc.response.text[:500]} Its job "
            f"variables have to match the base job template of work pool {declared.work_pool}."
        ) from exc
    return str(answer.json()["id"])


def remove(server: Server, saved: Saved) -> None:
    """Delete a deployment, if it still exists."""
    try:
        server.client.delete_deployment(UUID(saved.id))
    except ObjectNotFound:
        return


def destroy(server: Server, schedules: Schedules, saved: Sequence[Saved]) -> None:
    """Delete deployments and their automations."""
    for deployment in saved:
        server.delete_automation(late_name(schedules, deployment.full_name))
        if deployment.full_name == DEPLOYMENT:
            for event in plan_events(server, [], deployment.id):
                server.delete_automation(event.name)
        remove(server, deployment)
    if not read_saved(server, schedules.marker):
        for name in _resumes_there(server, schedules.owner):
            server.delete_automation(name)


def late_name(schedules: Schedules, full_name: str) -> str:
    """Return the name of the automation that alerts about a deployment's late runs."""
    return f"{schedules.owner} schedules: {full_name} is late"


Destinations = tuple[Reference | None, Reference | None]


def _destinations(server: Server) -> Destinations:
    """Return setup's blocks of a Slack webhook and a PagerDuty service, where they exist."""
    slack = Reference("webhook", "slack-webhook")
    pagerduty = Reference("pager-duty-webhook", "pagerduty")
    return (
        slack if slack.name in server.block_names(slack.type_slug) else None,
        pagerduty if pagerduty.name in server.block_names(pagerduty.type_slug) else None,
    )


def _late_document(
    schedules: Schedules, declared: DeclaredDeployment | None, deployment_id: str, tellable: Destinations
) -> AutomationDocument | None:
    if declared is None or not declared.late_after_seconds or not any(tellable):
        return None
    name = late_name(schedules, declared.full_name)
    return late_document(name, declared.full_name, deployment_id, declared.late_after_seconds, *tellable)


def _plan_late(
    server: Server, schedules: Schedules, change: DeploymentChange, tellable: Destinations
) -> LateChange | None:
    if change.action == "left":
        return None
    saved_id = change.saved.id if change.saved else str(_NO_ID)
    document = _late_document(schedules, change.declared, saved_id, tellable)
    there = server.read_automation(late_name(schedules, change.name))
    difference = change_of_automation(document, there) if document else None
    return plan_late(change.name, document, difference, there is not None)


def _apply_late(
    server: Server,
    schedules: Schedules,
    late: LateChange,
    planned: Plan,
    ids: dict[str, str],
    tellable: Destinations,
) -> None:
    if not late.is_change:
        return
    name = late_name(schedules, late.name)
    if late.action == "remove":
        server.delete_automation(name)
        return
    declared = next(it.declared for it in planned.only(DeploymentChange) if it.name == late.name)
    # Built again, as the deployment's id is known only now.
    document = _late_document(schedules, declared, ids[late.name], tellable)
    if document:
        for reference in tellable:
            if reference:
                server.read_block(reference.type_slug, reference.name)
        server.save_automation(document, server.read_automation(name))


def _read_pool(server: Server, name: str) -> SavedPool | None:
    try:
        pool = server.client.read_work_pool(name)
    except ObjectNotFound:
        return None
    return SavedPool(pool.type, pool.concurrency_limit)


def _save_pool(server: Server, change: PoolChange) -> None:
    pool = change.pool
    if change.action == "update":
        server.client.update_work_pool(change.name, WorkPoolUpdate(concurrency_limit=pool.concurrency))
        return
    create = WorkPoolCreate(
        name=change.name,
        type=pool.type,
        concurrency_limit=pool.concurrency,
        description="Made by deployments.apply.",
        base_job_template=_job_template(pool.type),
    )
    server.client.create_work_pool(create)


def _job_template(pool_type: str) -> dict[str, Any]:
    from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

    template = asyncio.run(get_default_base_job_template_for_infrastructure_type(pool_type))
    if template is None:
        raise ConfigError(
            f"Prefect has no work pool of type {pool_type!r}. To list the types: uv run prefect work-pool create --help"
        )
    return template
