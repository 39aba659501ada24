"""The typed models of schedules.yml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from infrastructure.server.automations import MOST_RESUMES
from infrastructure.targets.settings import Name, Settings
from infrastructure.yaml_file import meant

# Where the image of deployments/docker keeps the repository.
IMAGE_DIRECTORY = "/app"
# Where a workspace is mounted in a container of that image.
IMAGE_WORKSPACE = "/workspace"


def _is_cron(text: str) -> str:
    """Refuse what Prefect would refuse, and lines of six fields, whose meaning differs between tools."""
    from prefect.client.schemas.schedules import CronSchedule

    if len(text.split()) != 5:
        raise ValueError(f"{text!r} has to be five fields: minute, hour, day, month, weekday")
    try:
        CronSchedule(cron=text)
    except ValidationError as exc:
        reason = str(exc.errors()[0].get("ctx", {}).get("error") or exc.errors()[0]["msg"])
        raise ValueError(f"{text!r} is not a cron line: {reason}") from exc
    return text


def _is_zone(name: str) -> str:
    from zoneinfo import available_timezones

    zones = available_timezones()
    if name not in zones:
        near = meant(name, sorted(zones)) or "; write it as Europe/Berlin, America/New_York or UTC"
        raise ValueError(f"{name!r} is not a time zone{near}")
    return name


Cron = Annotated[str, AfterValidator(_is_cron)]
Zone = Annotated[str, AfterValidator(_is_zone)]


class Concurrency(Settings):
    """How many runs of a deployment there may be at once, on all workers together."""

    limit: int | None = Field(default=1, ge=1, description="Runs at once; null for no limit.")
    when_busy: Literal["wait", "cancel"] = Field(
        default="wait", description="What a run beyond the limit does: it waits, or is cancelled."
    )


class WorkPool(Settings):
    """A kind of worker that runs deployments; created on the server when missing."""

    type: str = Field(default="process", min_length=1, description="process, docker, kubernetes, …")
    concurrency: int | None = Field(
        default=None, ge=1, description="Runs at once in the whole pool; null for no limit."
    )
    directory: str | None = Field(
        default=None,
        description=f"Where workers find this repository: this checkout for a process pool, else {IMAGE_DIRECTORY}.",
    )
    workspace: str | None = Field(
        default=None,
        description=f"Where workers find your workspace: this one for a process pool, else {IMAGE_WORKSPACE}. "
        "Without a workspace of your own, they use the example.",
    )
    job_variables: dict[str, Any] = Field(
        default_factory=dict, description="Variables of Prefect's base job template, for every deployment of the pool."
    )


class Defaults(Settings):
    """Defaults of every deployment."""

    target: Name = Field(default="prod", description="The target, as targets.yml names it.")
    time_zone: Zone = Field(default="UTC", description="The time zone of `cron`, also when clocks change.")
    work_pool: str = Field(default="tributary", min_length=1, description="One of `work_pools`.")
    concurrency: Concurrency = Concurrency()


class Deployment(Settings):
    """One deployment of a flow."""

    flow: str = Field(min_length=1, description="Module and function: flows.pipelines.full.dbt_full_pipeline.")
    description: str | None = Field(default=None, description="Shown in the UI; default: the flow's own.")
    target: Name | None = Field(default=None, description="The parameter `target` of flows that have it.")
    project: str | None = Field(default=None, min_length=1, description="One of `projects` in tributary.yml.")
    cron: Cron | None = Field(default=None, description="The schedule; without it, it runs only on request.")
    time_zone: Zone | None = Field(default=None, description="The time zone of `cron`.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Parameters of the flow.")
    tags: list[str] = Field(default_factory=list, description="Tags of the deployment and of its runs.")
    concurrency: Concurrency | None = None
    work_pool: str | None = Field(default=None, min_length=1, description="One of `work_pools`.")
    job_variables: dict[str, Any] = Field(default_factory=dict, description="These override the work pool's.")
    retries: int = Field(
        default=0,
        ge=0,
        description="How often to retry a whole failed run; dbt's nodes have retries of their own.",
    )
    retry_delay_seconds: float = Field(default=60, ge=0, description="Seconds from a failed attempt to the next.")
    late_after_minutes: float | None = Field(
        default=None, gt=0, description="Alert when a run has not begun this long after Prefect marks it late."
    )
    resume_after_crash: int | None = Field(
        default=None,
        ge=0,
        le=MOST_RESUMES,
        description="How often a run whose process was killed is begun again, to do what it left undone; 0 for never. "
        "Default: 2 for the flows of flows.pipelines, 0 for others.",
    )
    paused: bool = Field(default=False, description="Keep the schedule, but create no runs from it.")


class Schedules(Settings):
    """The content of schedules.yml."""

    owner: Name = Field(
        default="tributary",
        description="Marks the deployments of this file on the server (tag managed-by:<owner>): others are left alone.",
    )
    defaults: Defaults = Defaults()
    work_pools: dict[Name, WorkPool] = Field(default_factory=lambda: {"tributary": WorkPool()})
    airbyte_events: bool = Field(
        default=False,
        description="Start the transformation on the events of finished syncs from Prefect Cloud's webhook.",
    )
    deployments: dict[str, Deployment] = Field(description="The deployments, as <flow>/<name>.")

    @property
    def marker(self) -> str:
        """Return the tag that marks this file's deployments on the server."""
        return f"managed-by:{self.owner}"
