"""Read and check schedules.yml of the workspace."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import ValidationError

from deployments.schedules.declared import DeclaredDeployment, declare
from deployments.schedules.schedule_models import Concurrency, Defaults, Deployment, Schedules, WorkPool
from infrastructure.targets.settings import Settings
from infrastructure.targets.target_file import load_targets
from infrastructure.workspace import workspace
from infrastructure.yaml_file import (
    Mistake,
    Place,
    all_of,
    field_names,
    meant,
    put_in_variables,
    read_yaml,
    unset_mistakes,
)

_NONE = ["none"]

# Names that Prefect or another tool has for our settings.
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


def load_schedules(
    path: Path | None = None, environ: Mapping[str, str] | None = None, targets: Collection[str] | None = None
) -> tuple[Schedules, list[DeclaredDeployment]]:
    """Read and check the schedules file against itself, the flows and the targets; imports the flows.

    Args:
        path: that of the workspace when None.
        environ: where `${NAME}` is looked up; the process environment when None.
        targets: the names of all targets; those of targets.yml when None.

    Raises:
        ConfigError: lists every mistake in the file, with its line.
    """
    file = read_yaml(path or workspace().schedules)
    data, unset = put_in_variables(file, os.environ if environ is None else environ)
    mistakes = unset_mistakes(unset)
    try:
        schedules = Schedules.model_validate(data)
    except ValidationError as exc:
        raise file.error(list((file.mistakes(exc, _known_names, _HINTS) | mistakes).values())) from None
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
    """Find names that are valid, but contradict targets.yml or the rest of the file."""
    there = sorted(load_targets().names if targets is None else targets)
    projects = sorted(workspace().places.projects)
    places: list[tuple[Place, str | None, list[str], str]] = [
        (("defaults", "target"), schedules.defaults.target, there, "target"),
        (("defaults", "work_pool"), schedules.defaults.work_pool, sorted(schedules.work_pools), "work pool"),
    ]
    for name, deployment in schedules.deployments.items():
        place = ("deployments", name)
        places.append(((*place, "target"), deployment.target, there, "target"))
        places.append(((*place, "work_pool"), deployment.work_pool, sorted(schedules.work_pools), "work pool"))
        places.append(((*place, "project"), deployment.project, projects, "project"))
    return [
        Mistake(place, f"there is no {kind} {found!r}{meant(found, known) or f'; there is {all_of(known or _NONE)}'}")
        for place, found, known, kind in places
        if found is not None and found not in known
    ]


def _known_names(place: Place) -> list[str]:
    models: dict[str, type[Settings]] = {"defaults": Defaults, "work_pools": WorkPool, "deployments": Deployment}
    if "concurrency" in place[:-1]:
        return field_names(Concurrency)
    return field_names(models.get(str(place[0]), Schedules)) if len(place) > 1 else field_names(Schedules)
