"""Compare the deployments on a server with those of schedules.yml, field by field; change nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from deployments.schedules.declared import DeclaredDeployment, digest
from infrastructure.errors import ConfigError
from infrastructure.plan import Change, FieldChange

if TYPE_CHECKING:
    from deployments.schedules.schedule_models import Schedules, WorkPool
    from infrastructure.server.automations import AutomationChange, AutomationDocument


@dataclass(frozen=True)
class Saved:
    """One deployment as a server has it.

    Attributes:
        fields: those that a plan compares, as `fields_of` returns them for a declared one.
        is_ours: whether it carries the marker of the schedules file.
    """

    id: str
    full_name: str
    target: str | None
    is_ours: bool
    fields: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True)
class SavedPool:
    """One work pool as a server has it."""

    type: str
    concurrency: int | None


@dataclass(frozen=True)
class DeploymentChange(Change):
    """The change to one deployment.

    Attributes:
        declared: None for one that is no longer in the file; without --prune, it stays.
        saved: None for one that the server does not have.
    """

    declared: DeclaredDeployment | None = field(default=None, kw_only=True)
    saved: Saved | None = field(default=None, kw_only=True)

    @property
    def next_run(self) -> datetime | None:
        """Return its next scheduled run; None without a schedule."""
        return next(iter(self.declared.next_runs(datetime.now(UTC))), None) if self.declared else None

    def details(self) -> list[str]:
        """Return the differences, and the next run."""
        at = self.next_run
        return [*super().details(), *([f"next run: {at:%a %Y-%m-%d %H:%M %Z}"] if at else [])]

    def as_document(self, key: str = "deployment") -> dict[str, Any]:
        """Return the change as a JSON document."""
        return {**super().as_document(key), "next_run": at.isoformat() if (at := self.next_run) else None}


@dataclass(frozen=True)
class PoolChange(Change):
    """The change to one work pool; pools are never removed, as workers depend on them."""

    pool: WorkPool = field(kw_only=True)

    @property
    def title(self) -> str:
        """Return the pool's name for people."""
        return f"work pool {self.name}"


@dataclass(frozen=True)
class LateChange(Change):
    """The change to the automation that alerts about a deployment's late runs; its name is the deployment's."""

    @property
    def title(self) -> str:
        """Return the automation's name for people."""
        return f"automation that alerts when {self.name} is late"


@dataclass(frozen=True)
class ComparedDeployment:
    """What is compared of a deployment, declared or saved."""

    entrypoint: str | None
    description: str | None
    schedules: Sequence[str]
    paused: bool
    parameters: Mapping[str, Any]
    parameter_schema: Mapping[str, Any]
    enforces_schema: bool
    tags: Sequence[str]
    limit: int | None
    when_busy: str | None
    work_pool: str | None
    job_variables: Mapping[str, Any]
    pull_steps: Sequence[Mapping[str, Any]]

    def fields(self) -> dict[str, object]:
        """Return its fields in the form and order in which a plan shows them."""
        takes = ", ".join(cast(Mapping[str, Any], self.parameter_schema.get("properties") or {}))
        waits = "next is cancelled" if self.when_busy == "CANCEL_NEW" else "next waits"
        variables, environment = self.job_variables, self.job_variables.get("env") or {}
        return {
            "entrypoint": self.entrypoint,
            "description": self.description or None,
            "schedule": "; ".join(sorted(self.schedules)) or None,
            "paused": self.paused,
            **{f"parameters.{name}": value for name, value in sorted(self.parameters.items())},
            "takes": f"{takes or 'nothing'} ({digest(self.parameter_schema)})",
            "refuses other parameters": self.enforces_schema,
            "tags": sorted(self.tags),
            "concurrency": f"{self.limit} at a time, {waits}" if self.limit else None,
            "work pool": self.work_pool,
            **{f"job variables.{name}": value for name, value in sorted(variables.items()) if name != "env"},
            **{f"job variables.env.{name}": value for name, value in sorted(environment.items())},
            "before a run": list(self.pull_steps) or None,
        }


def fields_of(declared: DeclaredDeployment) -> dict[str, object]:
    """Return the fields of a declared deployment to compare."""
    return ComparedDeployment(
        entrypoint=declared.entrypoint,
        description=declared.description,
        schedules=[schedule_text(declared.cron, declared.time_zone)] if declared.cron else [],
        paused=declared.paused,
        parameters=declared.parameters,
        parameter_schema=declared.parameter_schema,
        enforces_schema=True,
        tags=declared.tags,
        limit=declared.limit,
        when_busy=declared.when_busy,
        work_pool=declared.work_pool,
        job_variables=declared.job_variables,
        pull_steps=declared.pull_steps,
    ).fields()


def schedule_text(cron: str, time_zone: str | None, is_active: bool = True) -> str:
    """Return a schedule as text for a plan."""
    return f"{cron} ({time_zone or 'UTC'})" + ("" if is_active else ", not active")


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[FieldChange, ...]:
    """Return the fields that differ, in the order of the new ones."""
    return tuple(
        FieldChange(name, _text_of(name, old.get(name)), _text_of(name, new.get(name)))
        for name in dict.fromkeys((*new, *old))
        if old.get(name) != new.get(name)
    )


def plan_deployments(
    declared: Sequence[DeclaredDeployment], saved: Sequence[Saved], *, prune: bool, target: str | None = None
) -> list[DeploymentChange]:
    """Compare what is declared with what a server has.

    Args:
        saved: those with the marker, and those without it that have a declared name.
        prune: remove those with the marker that the file no longer has.
        target: compare only the deployments of this target.
    """
    by_name = {deployment.full_name: deployment for deployment in saved}
    changes: list[DeploymentChange] = []
    for deployment in declared:
        if target is not None and deployment.target != target:
            continue
        found, wanted = by_name.get(deployment.full_name), fields_of(deployment)
        if found is None:
            shown = differences({"paused": False}, {name: it for name, it in wanted.items() if name not in _FROM_FLOW})
            changes.append(DeploymentChange(deployment.full_name, "create", shown, declared=deployment))
            continue
        fields = differences(found.fields, wanted)
        action = "update" if fields else "unchanged"
        changes.append(DeploymentChange(deployment.full_name, action, fields, declared=deployment, saved=found))
    names = {deployment.full_name for deployment in declared}
    for deployment in sorted(saved, key=lambda it: it.full_name):
        if deployment.full_name in names or not deployment.is_ours:
            continue
        if target is not None and deployment.target != target:
            continue
        reason = "no longer in the file" + ("" if prune else "; --prune removes it")
        action = "remove" if prune else "left"
        changes.append(DeploymentChange(deployment.full_name, action, reason=reason, saved=deployment))
    return changes


_LOOKS_SECRET = re.compile(r"pass|secret|token|key|credential|auth|dsn|url", re.IGNORECASE)

# For a new deployment, fields that follow from the flow or are the same everywhere are not shown.
_FROM_FLOW = ("description", "takes", "refuses other parameters", "tags", "before a run")


def plan_pool(name: str, pool: WorkPool, saved: SavedPool | None) -> PoolChange:
    """Compare a work pool with what a server has.

    Raises:
        ConfigError: there is one of that name of another type, which can't be changed.
    """
    wanted: dict[str, object] = {"type": pool.type, "concurrency": pool.concurrency}
    if saved is None:
        return PoolChange(name, "create", differences({}, wanted), pool=pool)
    if saved.type != pool.type:
        raise ConfigError(
            f"Work pool {name} on the server is of type {saved.type}, but {pool.type} in deployments/schedules.yml. "
            "A pool can't change its type: name another one, or delete it when it has no workers: "
            f"uv run prefect work-pool delete {name}"
        )
    fields = differences({"type": saved.type, "concurrency": saved.concurrency}, wanted)
    return PoolChange(name, "update" if fields else "unchanged", fields, pool=pool)


def plan_late(
    full_name: str, document: AutomationDocument | None, change: AutomationChange | None, is_there: bool
) -> LateChange | None:
    """Return the change to the automation for a deployment's late runs; None where there is none.

    Args:
        document: as it should be; None for no alert.
        change: how the server's differs from it; None where there is no document.
        is_there: whether the server has one of its name.
    """
    if document is None:
        return LateChange(full_name, "remove") if is_there else None
    if change is None or change.action == "create":
        return LateChange(full_name, "create")
    return LateChange(full_name, change.action, change.fields)


def used_pools(schedules: Schedules, declared: Sequence[DeclaredDeployment], target: str | None) -> dict[str, WorkPool]:
    """Return the work pools that the deployments of a plan run in."""
    names = {it.work_pool for it in declared if target is None or it.target == target}
    return {name: schedules.work_pools[name] for name in sorted(names)}


def _text_of(name: str, value: object) -> str | None:
    if value is None:
        return None
    if name.startswith("job variables.env.") and _LOOKS_SECRET.search(name):
        # A secret belongs in a block; if one is here all the same, it must not be printed, as plans are often public.
        return "(not shown)"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 200 else f"{text[:199]}…"
