"""The declared form of a deployment of schedules.yml, from the file and the flow itself."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.schedules.moved_flows import present_entrypoint
from deployments.schedules.schedule_models import IMAGE_DIRECTORY, IMAGE_WORKSPACE
from infrastructure.server.automations import HEARTBEAT_SECONDS, RESUMES_TAG
from infrastructure.workspace import ROOT, WORKSPACE_VARIABLE, workspace
from infrastructure.yaml_file import Mistake, Place, meant

if TYPE_CHECKING:
    from prefect import Flow

    from deployments.schedules.schedule_models import Deployment, Schedules, WorkPool

# How often the runs of these flows go on after a crash; the runbook's wait for a person.
_RESUMES = 2
_SET_DIRECTORY = "prefect.deployments.steps.set_working_directory"


@dataclass(frozen=True)
class DeclaredDeployment:
    """One deployment as it should be.

    Attributes:
        entrypoint: module and function; never a file, which Prefect would import a second time under another name.
        parameter_schema: JSON Schema of the flow's parameters, by which the server validates runs.
        limit: runs at once; None for no limit.
        when_busy: ENQUEUE or CANCEL_NEW, as in Prefect.
        pull_steps: what a worker does before it imports the flow.
        late_after_seconds: None for no alert about late runs.
        resume_after_crash: how often a run whose process was killed goes on.
    """

    flow_name: str
    name: str
    entrypoint: str
    description: str
    parameters: dict[str, Any]
    parameter_schema: dict[str, Any] = field(repr=False)
    tags: tuple[str, ...]
    cron: str | None
    time_zone: str
    paused: bool
    limit: int | None
    when_busy: str
    work_pool: str
    job_variables: dict[str, Any]
    pull_steps: tuple[dict[str, Any], ...]
    retries: int
    retry_delay_seconds: float
    late_after_seconds: int | None
    resume_after_crash: int = 0

    @property
    def full_name(self) -> str:
        """Return <flow>/<name>, the deployment's name in commands."""
        return f"{self.flow_name}/{self.name}"

    @property
    def target(self) -> str | None:
        """Return its target; None for a flow without one."""
        return self.parameters.get("target")

    @cached_property
    def flow(self) -> Flow[..., Any]:
        """Return the flow itself."""
        module, _, function = self.entrypoint.rpartition(".")
        return getattr(import_module(module), function)

    def next_runs(self, after: datetime, count: int = 1) -> list[datetime]:
        """Return its next runs in its time zone; none without a schedule or while it is paused."""
        return next_runs(self.cron, self.time_zone, after, count) if self.cron and not self.paused else []


def next_runs(cron: str, time_zone: str, after: datetime, count: int) -> list[datetime]:
    """Return the times of a cron line after a moment, as Prefect's scheduler computes them.

    Other cron libraries differ on the day that clocks change, and Prefect's decides when runs start.
    """
    import asyncio
    from zoneinfo import ZoneInfo

    from prefect.server.schemas.schedules import CronSchedule

    zone = ZoneInfo(time_zone)
    schedule = CronSchedule(cron=cron, timezone=time_zone)
    found = asyncio.run(schedule.get_dates(count, after.astimezone(zone)))
    return [datetime.fromtimestamp(at.timestamp(), zone) for at in found]


def declare(schedules: Schedules, full_name: str) -> DeclaredDeployment | list[Mistake]:
    """Return a deployment's declared form, or its mistakes; imports its flow."""
    deployment = schedules.deployments[full_name]
    place: Place = ("deployments", full_name)
    flow_name, slash, name = full_name.partition("/")
    if not (flow_name and slash and name) or "/" in name:
        return [Mistake(place, "has to be named <flow>/<name>, such as dbt-full-pipeline/nightly")]
    entrypoint = present_entrypoint(deployment.flow)
    flow = _flow(entrypoint, (*place, "flow"))
    if isinstance(flow, Mistake):
        return [flow]
    mistakes: list[Mistake] = []
    if flow.name != flow_name:
        mistakes.append(Mistake(place, f"{deployment.flow} is the flow {flow.name!r}: name it {flow.name}/{name}"))
    schema = flow.parameters.model_dump(mode="json", exclude_unset=True)
    parameters = dict(deployment.parameters)
    if "target" in parameters:
        mistakes.append(Mistake((*place, "parameters", "target"), "write `target` beside the parameters"))
    takes_target = "target" in flow.parameters.properties
    if takes_target:
        parameters["target"] = deployment.target or schedules.defaults.target
    elif deployment.target:
        mistakes.append(Mistake((*place, "target"), f"the flow {flow.name} takes no target"))
    if deployment.project and "project_dir" not in flow.parameters.properties:
        mistakes.append(Mistake((*place, "project"), f"the flow {flow.name} takes no project"))
    elif deployment.project:
        # By name: where its files are is found out by the run, on whichever machine.
        parameters["project_dir"] = deployment.project
    mistakes += _wrong_parameters(flow, schema, parameters, (*place, "parameters"))
    if deployment.time_zone and not deployment.cron:
        mistakes.append(Mistake((*place, "time_zone"), "has no effect without `cron`"))
    pool_name = deployment.work_pool or schedules.defaults.work_pool
    pool = schedules.work_pools.get(pool_name)
    if mistakes or pool is None:
        # An unknown pool is a mistake of its own.
        return mistakes
    resumes = deployment.resume_after_crash
    if resumes is None:
        resumes = _RESUMES if entrypoint.startswith("flows.pipelines.") else 0
    concurrency = deployment.concurrency or schedules.defaults.concurrency
    return DeclaredDeployment(
        flow_name=flow_name,
        name=name,
        entrypoint=entrypoint,
        description=deployment.description or (flow.description or "").strip().partition("\n")[0],
        parameters=dict(sorted(parameters.items())),
        parameter_schema=schema,
        tags=tuple(sorted({*deployment.tags, schedules.marker, *([f"{RESUMES_TAG}{resumes}"] if resumes else [])})),
        cron=deployment.cron,
        time_zone=deployment.time_zone or schedules.defaults.time_zone,
        paused=deployment.paused,
        limit=concurrency.limit,
        when_busy="CANCEL_NEW" if concurrency.when_busy == "cancel" else "ENQUEUE",
        work_pool=pool_name,
        job_variables=_job_variables(deployment, pool, resumes, _is_of_the_workspace(entrypoint)),
        pull_steps=({_SET_DIRECTORY: {"directory": _directory(pool)}},),
        retries=deployment.retries,
        retry_delay_seconds=deployment.retry_delay_seconds,
        late_after_seconds=round(deployment.late_after_minutes * 60) if deployment.late_after_minutes else None,
        resume_after_crash=resumes,
    )


def _flow(entrypoint: str, place: Place) -> Flow[..., Any] | Mistake:
    from prefect import Flow

    if ":" in entrypoint or entrypoint.endswith(".py") or "/" in entrypoint:
        return Mistake(
            place,
            f"{entrypoint!r} names a file; name the module and the function, as in "
            "flows.pipelines.full.dbt_full_pipeline",
        )
    module_name, _, function = entrypoint.rpartition(".")
    if not (own := workspace()).is_example and str(own.folder) not in sys.path:
        # At the end: nothing of the user's replaces a module of ours or of a library.
        sys.path.append(str(own.folder))
    try:
        module = import_module(module_name)
    except (ImportError, ValueError) as exc:
        return Mistake(place, f"there is no flow {entrypoint}: {exc}")
    found: object = getattr(module, function, None)
    if isinstance(found, Flow):
        return found
    flows = sorted(name for name, value in vars(module).items() if isinstance(value, Flow))
    there = meant(function, flows) or (f"; there is {', '.join(flows)}" if flows else "")
    return Mistake(place, f"module {module_name} has no flow {function!r}{there}")


def _wrong_parameters(
    flow: Flow[..., Any], schema: dict[str, Any], parameters: Mapping[str, Any], place: Place
) -> list[Mistake]:
    from prefect.utilities.schema_tools.validation import validate

    taken = list(flow.parameters.properties)
    unknown = [name for name in parameters if name not in taken]
    mistakes = [
        Mistake((*place, name), f"the flow {flow.name} takes no such parameter{_or_these(name, taken)}")
        for name in unknown
    ]
    known = {name: value for name, value in parameters.items() if name in taken}
    for error in validate(known, schema, ignore_required=True):
        name = next(iter(error.absolute_path), "")
        if isinstance(name, str) and name in known:
            mistakes.append(Mistake((*place, name), f"the flow {flow.name} does not accept this: {error.message}"))
    return mistakes


def _or_these(name: str, taken: list[str]) -> str:
    return meant(name, taken) or f"; it takes {', '.join(taken) or 'none'}"


def _directory(pool: WorkPool) -> str:
    return pool.directory or (str(ROOT) if pool.type == "process" else IMAGE_DIRECTORY)


def _workspace(pool: WorkPool) -> str | None:
    """Return where workers of a pool find the workspace; None where they need none but the example."""
    own = workspace()
    if pool.workspace or own.is_example:
        return pool.workspace
    return str(own.folder) if pool.type == "process" else IMAGE_WORKSPACE


def _is_of_the_workspace(entrypoint: str) -> bool:
    """Return whether a flow that is imported is a user's own, in a file of the workspace."""
    file = sys.modules[entrypoint.rpartition(".")[0]].__file__
    return (
        bool(file) and Path(str(file)).is_relative_to(workspace().folder) and not Path(str(file)).is_relative_to(ROOT)
    )


def _job_variables(deployment: Deployment, pool: WorkPool, resumes: int, is_own: bool) -> dict[str, Any]:
    variables = {**pool.job_variables, **deployment.job_variables}
    env = {**pool.job_variables.get("env", {}), **deployment.job_variables.get("env", {})}
    if deployment.retries:
        # Deployments have no retries on a server; a flow without retries takes them from these settings.
        env["PREFECT_FLOWS_DEFAULT_RETRIES"] = str(deployment.retries)
        env["PREFECT_FLOWS_DEFAULT_RETRY_DELAY_SECONDS"] = f"{deployment.retry_delay_seconds:g}"
    if place := _workspace(pool):
        env.setdefault(WORKSPACE_VARIABLE, place)
        if is_own:
            env["PYTHONPATH"] = os.pathsep.join([env[WORKSPACE_VARIABLE], *filter(None, [env.get("PYTHONPATH")])])
    if resumes:
        env.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_SECONDS))
    return {**variables, "env": env} if env else variables


def digest(document: object) -> str:
    """Return a short digest of a document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()[:8]
