"""What runs where and when, read from deployments/schedules.yml into typed models.

`python -m deployments.schedules.schedule_file` writes deployments/schedules.schema.json anew, for editors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from deployments.schedules.declared import IMAGE_DIRECTORY, DeclaredDeployment, declare
from infrastructure.targets.target_file import ROOT, load_targets
from infrastructure.targets.warehouses import Name, Settings
from infrastructure.yaml_file import (
    Mistake,
    Place,
    YamlFile,
    all_of,
    field_names,
    meant,
    mistake_of,
    put_in_variables,
    read_yaml,
)

SCHEDULES_FILE = ROOT / "deployments" / "schedules.yml"
SCHEMA_FILE = ROOT / "deployments" / "schedules.schema.json"

# What people try, because Prefect or another tool calls it so.
_HINTS = {
    "entrypoint": "is called `flow` here, and names a module: flows.pipelines.full.dbt_full_pipeline",
    "timezone": "is called `time_zone` here",
    "tz": "is called `time_zone` here",
    "schedule": "is called `cron` here",
    "interval": "write it as `cron`, such as '*/10 * * * *'",
    "work_pool_name": "is called `work_pool` here",
    "concurrency_limit": "is called `concurrency` here: {limit: 1, when_busy: wait}",
    "collision_strategy": "is called `when_busy` here: wait (Prefect's ENQUEUE) or cancel (CANCEL_NEW)",
}


def _is_cron(text: str) -> str:
    """Refuse what Prefect would refuse, and lines of six fields, which people mean otherwise."""
    from prefect.client.schemas.schedules import CronSchedule

    if len(text.split()) != 5:
        raise ValueError(f"{text!r} has to be five fields: minute, hour, day, month, weekday")
    try:
        CronSchedule(cron=text)
    except ValidationError as exc:
        reason = str(exc.errors()[0].get("ctx", {}).get("error") or exc.errors()[0]["msg"])
        raise ValueError(f"{text!r} is no cron line: {reason}") from exc
    return text


def _is_zone(name: str) -> str:
    from zoneinfo import available_timezones

    zones = available_timezones()
    if name not in zones:
        near = meant(name, sorted(zones)) or "; write it as Europe/Berlin, America/New_York or UTC"
        raise ValueError(f"{name!r} is no time zone{near}")
    return name


Cron = Annotated[str, AfterValidator(_is_cron)]
Zone = Annotated[str, AfterValidator(_is_zone)]


class Concurrency(Settings):
    """How many runs of a deployment there may be at once, whatever workers there are."""

    limit: int | None = Field(default=1, ge=1, description="Runs at once; null for as many as are asked for.")
    when_busy: Literal["wait", "cancel"] = Field(
        default="wait", description="What the next run does: waits for its turn, or is cancelled."
    )


class WorkPool(Settings):
    """The kind of workers that pick runs up; made on the server where it is not there."""

    type: str = Field(default="process", min_length=1, description="process, docker, kubernetes, …")
    concurrency: int | None = Field(
        default=None, ge=1, description="Runs at once in the whole pool; null for no limit."
    )
    directory: str | None = Field(
        default=None,
        description=f"Where workers find this repository: this checkout for a process pool, else {IMAGE_DIRECTORY}.",
    )
    job_variables: dict[str, Any] = Field(
        default_factory=dict, description="What Prefect's base job template takes, for every deployment of the pool."
    )


class Defaults(Settings):
    """What holds for every deployment that does not say otherwise."""

    target: Name = Field(default="prod", description="The target, as targets.yml names it.")
    time_zone: Zone = Field(default="UTC", description="The clock that `cron` follows, also when clocks change.")
    work_pool: str = Field(default="tributary", min_length=1, description="One of `work_pools`.")
    concurrency: Concurrency = Concurrency()


class Deployment(Settings):
    """One deployment of a flow."""

    flow: str = Field(min_length=1, description="Module and function: flows.pipelines.full.dbt_full_pipeline.")
    description: str | None = Field(default=None, description="Shown in the UI; the flow's own when left out.")
    target: Name | None = Field(default=None, description="Becomes the parameter `target` of flows that take it.")
    cron: Cron | None = Field(default=None, description="When it runs by itself; never, when left out.")
    time_zone: Zone | None = Field(default=None, description="The clock that `cron` follows.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Parameters of the flow.")
    tags: list[str] = Field(default_factory=list, description="Tags of the deployment and of its runs.")
    concurrency: Concurrency | None = None
    work_pool: str | None = Field(default=None, min_length=1, description="One of `work_pools`.")
    job_variables: dict[str, Any] = Field(default_factory=dict, description="As of the work pool; these go first.")
    retries: int = Field(
        default=0,
        ge=0,
        description="Further attempts of a whole run that failed; dbt's nodes have retries of their own.",
    )
    retry_delay_seconds: float = Field(default=60, ge=0, description="From a failed attempt to the next.")
    late_after_minutes: float | None = Field(
        default=None, gt=0, description="Alert when a run has not begun so long after Prefect calls it late."
    )
    paused: bool = Field(default=False, description="Keep the schedule, and make no runs of it.")


class Schedules(Settings):
    """Everything that deployments/schedules.yml says."""

    owner: Name = Field(
        default="tributary",
        description="Marks the deployments of this file on the server (tag managed-by:<owner>): others are left alone.",
    )
    defaults: Defaults = Defaults()
    work_pools: dict[Name, WorkPool] = Field(default_factory=lambda: {"tributary": WorkPool()})
    airbyte_events: bool = Field(
        default=False,
        description="Start the transformation on the events that Prefect Cloud's webhook makes of finished syncs.",
    )
    deployments: dict[str, Deployment] = Field(description="The deployments, as <flow>/<name>.")

    @property
    def marker(self) -> str:
        """Return the tag by which a deployment on the server is known to be of this file."""
        return f"managed-by:{self.owner}"


def load_schedules(
    path: Path | None = None, environ: Mapping[str, str] | None = None, targets: Collection[str] | None = None
) -> tuple[Schedules, list[DeclaredDeployment]]:
    """Read and check the schedules file against itself, the flows and the targets; imports the flows.

    Args:
        path: deployments/schedules.yml when None.
        environ: where `${NAME}` is looked up; the process environment when None.
        targets: the targets there are; those of targets.yml when None.

    Raises:
        ConfigError: lists every mistake in the file, with its line.
    """
    file = read_yaml(path or SCHEDULES_FILE)
    data, unset = put_in_variables(file, os.environ if environ is None else environ)
    mistakes: dict[Place, Mistake] = {
        place: Mistake(place, f"set {all_of(names)}, or give a default as in ${{NAME:-default}}")
        for place, names in unset.items()
    }
    try:
        schedules = Schedules.model_validate(data)
    except ValidationError as exc:
        for error in exc.errors():
            place = _place(file, error)
            mistakes.setdefault(place, mistake_of(error, place, _known_names, _HINTS))
        raise file.error(list(mistakes.values())) from None
    declared: list[DeclaredDeployment] = []
    for full_name in schedules.deployments:
        found = declare(schedules, full_name)
        if isinstance(found, DeclaredDeployment):
            declared.append(found)
        else:
            mistakes |= {mistake.place: mistake for mistake in found}
    mistakes |= {mistake.place: mistake for mistake in _misnamed(schedules, targets)}
    if mistakes:
        raise file.error(list(mistakes.values()))
    return schedules, declared


def _misnamed(schedules: Schedules, targets: Collection[str] | None) -> list[Mistake]:
    """Find names that are right by themselves, and wrong together with targets.yml or the rest of the file."""
    there = sorted(load_targets().names if targets is None else targets)
    places: list[tuple[Place, str | None, list[str], str]] = [
        (("defaults", "target"), schedules.defaults.target, there, "target"),
        (("defaults", "work_pool"), schedules.defaults.work_pool, sorted(schedules.work_pools), "work pool"),
    ]
    for name, deployment in schedules.deployments.items():
        place = ("deployments", name)
        places.append(((*place, "target"), deployment.target, there, "target"))
        places.append(((*place, "work_pool"), deployment.work_pool, sorted(schedules.work_pools), "work pool"))
    return [
        Mistake(place, f"there is no {kind} {found!r}{meant(found, known) or f'; there is {all_of(known)}'}")
        for place, found, known, kind in places
        if found is not None and found not in known
    ]


def _place(file: YamlFile, error: ErrorDetails) -> Place:
    place: Place = tuple(part for part in error["loc"] if part != "[key]")
    if error["type"] == "missing":
        return place
    while place and place not in file.lines:
        place = place[:-1]
    return place


def _known_names(place: Place) -> list[str]:
    models: dict[str, type[Settings]] = {"defaults": Defaults, "work_pools": WorkPool, "deployments": Deployment}
    if "concurrency" in place[:-1]:
        return field_names(Concurrency)
    return field_names(models.get(str(place[0]), Schedules)) if len(place) > 1 else field_names(Schedules)


def schema_text() -> str:
    """Return the JSON Schema of the schedules file, as it is committed for editors."""
    schema = Schedules.model_json_schema()
    schema["title"] = "Tributary's schedules.yml"
    for definition in [schema, *cast(dict[str, Any], schema["$defs"]).values()]:
        for name, setting in definition.get("properties", {}).items():
            definition["properties"][name] = _or_variable(setting)
    return json.dumps(schema, indent=2) + "\n"


def _or_variable(setting: dict[str, Any]) -> dict[str, Any]:
    """Let what is no free text also be written as `${NAME}` or `${NAME:-default}`."""
    kinds = setting.get("anyOf", [setting])
    told = ("enum", "pattern")
    if not any(
        kind.get("type") in ("integer", "number", "boolean") or any(it in kind for it in told) for kind in kinds
    ):
        return setting
    outer = {key: value for key, value in setting.items() if key in ("description", "title", "default")}
    inner = [{key: value for key, value in kind.items() if key not in outer} for kind in kinds]
    return {**outer, "anyOf": [*inner, {"type": "string", "pattern": r"^\$\{.+\}$"}]}


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
