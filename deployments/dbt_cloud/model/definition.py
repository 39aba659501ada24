"""The definition of a job in a file: one form for `.tfvars` and YAML, checked as far as possible without dbt Cloud."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from deployments.dbt_cloud.model.time_zones import check_cron, check_zone
from infrastructure.errors import ConfigError

ScheduleType = Literal["every_day", "days_of_week", "custom_cron", "interval_cron", "manual"]
# Names of the types in files for other tools.
_SPELLINGS = {
    "daily": "every_day",
    "weekly": "days_of_week",
    "custom_days": "days_of_week",
    "cron": "custom_cron",
    "interval": "interval_cron",
    "none": "manual",
}
API_JOB_TYPES = ("ci", "scheduled", "other", "merge", "exposure_sync", "adaptive", "hybrid")
STATUSES = {"success": 10, "error": 20, "canceled": 30, "cancelled": 30}
SECRET_PREFIX = "DBT_ENV_SECRET_"
# A value of this form is read from the environment of the deployment, so that no file contains a secret.
ENV_PREFIX = "env:"
_VARIABLE_NAME = re.compile(r"DBT_[A-Z0-9_]+")
# The commands of dbt Cloud's steps: a typing error is found now, not by the first run at night.
_COMMANDS = frozenset(
    [
        "build",
        "clean",
        "clone",
        "compare",
        "compile",
        "debug",
        "deps",
        "docs",
        "init",
        "list",
        "ls",
        "parse",
        "retry",
        "run",
        "run-operation",
        "seed",
        "show",
        "snapshot",
        "source",
        "sl",
        "test",
    ]
)


def _text_of_scalar(value: object) -> object:
    # As in Terraform, numbers and booleans become text where text is expected.
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_text_of_scalar)]


class RunAfter(BaseModel):
    """A job that starts this one when it ends.

    Attributes:
        job: its name in this file, its full name in dbt Cloud, or its id.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: Text
    project_id: int | None = None
    statuses: list[str] = Field(default=["success"], min_length=1)

    @field_validator("statuses", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        numbers = {number: word for word, number in reversed(STATUSES.items())}
        if isinstance(value, list):
            return [numbers.get(it, it) if isinstance(it, int) else it for it in cast(list[Any], value)]
        return value

    @field_validator("statuses")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        if unknown := sorted(set(value) - STATUSES.keys()):
            raise ValueError(f"there is no status {', '.join(unknown)}: use success, error, canceled")
        return value


class JobDefinition(BaseModel):
    """One job as a file describes it.

    Attributes:
        name: before the team, branch and user are put in front of it.
        schedule_days: 1 is Monday. Sunday is 0 in dbt Cloud and 7 in many files; both are taken.
        schedule_tz: the time zone of `schedule_hours` and `schedule_cron`; UTC when left out.
        identifier: the key of a job of dbt-jobs-as-code.
        linked_id: a job in dbt Cloud to take over as this one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text = Field(min_length=1)
    execute_steps: list[str] = Field(min_length=1)
    description: Text = ""
    project_id: int | None = None
    environment_id: int | None = None
    schedule_type: ScheduleType = "every_day"
    schedule_hours: list[Annotated[int, Field(ge=0, le=23)]] | None = None
    schedule_days: list[Annotated[int, Field(ge=0, le=7)]] | None = None
    schedule_interval: Annotated[int, Field(ge=1, le=23)] | None = None
    schedule_cron: str | None = None
    schedule_tz: str | None = None
    github_webhook: bool = False
    git_provider_webhook: bool = False
    on_merge: bool = False
    job_type: str | None = None
    threads: int = Field(default=4, ge=1)
    target_name: Text = "default"
    timeout_seconds: int = Field(default=0, ge=0)
    generate_docs: bool = False
    run_generate_sources: bool = False
    dbt_version: str | None = None
    run_lint: bool = False
    errors_on_lint_failure: bool = True
    run_compare_changes: bool = False
    compare_changes_flags: str = "--select state:modified"
    triggers_on_draft_pr: bool = False
    cost_optimization_features: list[str] = []
    deferring_environment_id: int | None = None
    deferring_job_id: int | None = None
    self_deferring: bool = False
    run_after: RunAfter | None = None
    environment_variables: dict[str, Text] = {}
    identifier: str | None = None
    linked_id: int | None = None

    @field_validator("schedule_type", mode="before")
    @classmethod
    def _spelling(cls, value: object) -> object:
        return _SPELLINGS.get(value, value) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _custom(cls, data: object) -> object:
        # "custom" of the first document: a cron line where there is one, else chosen days.
        if isinstance(data, dict):
            fields = cast(dict[str, Any], data)
            if fields.get("schedule_type") == "custom":
                kind = "custom_cron" if fields.get("schedule_cron") else "days_of_week"
                return {**fields, "schedule_type": kind}
        return cast(object, data)

    @field_validator("schedule_days")
    @classmethod
    def _sunday(cls, value: list[int] | None) -> list[int] | None:
        return sorted({day % 7 for day in value}) if value is not None else None

    @field_validator("schedule_hours")
    @classmethod
    def _ordered(cls, value: list[int] | None) -> list[int] | None:
        return sorted(set(value)) if value is not None else None

    @field_validator("job_type")
    @classmethod
    def _only_of_the_api(cls, value: str | None) -> str | None:
        # Files say "daily" or "weekly" here, which dbt Cloud does not know: it works the type out from the triggers.
        return value if value in API_JOB_TYPES else None

    @model_validator(mode="after")
    def _fits_together(self) -> JobDefinition:
        wrong = [*self._schedule_mistakes(), *self._other_mistakes()]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _schedule_mistakes(self) -> list[str]:
        kind, wrong = self.schedule_type, list[str]()
        if kind == "days_of_week" and not self.schedule_days:
            wrong.append("schedule_days is missing: days are 1 (Monday) to 7 (Sunday)")
        if kind == "custom_cron" and not self.schedule_cron:
            wrong.append("schedule_cron is missing")
        if kind != "custom_cron" and self.schedule_cron:
            wrong.append(f"schedule_cron is for schedule_type custom_cron, not {kind}")
        if kind == "interval_cron" and not self.schedule_interval:
            wrong.append("schedule_interval is missing: hours from one run to the next")
        if kind == "every_day" and self.schedule_days:
            wrong.append("schedule_days is for schedule_type weekly, not every_day")
        if self.schedule_hours and self.schedule_interval:
            wrong.append("schedule_hours and schedule_interval exclude each other")
        if kind == "interval_cron" and self.schedule_hours:
            wrong.append("schedule_hours is not for schedule_type interval_cron")
        if self.on_merge and (kind != "manual" or self.github_webhook or self.git_provider_webhook):
            wrong.append('on_merge excludes every other trigger: set schedule_type = "manual"')
        try:
            if self.schedule_cron:
                check_cron(self.schedule_cron)
            if self.schedule_tz:
                check_zone(self.schedule_tz)
        except ConfigError as exc:
            wrong.append(str(exc))
        if self.schedule_tz and kind == "every_day" and not self.schedule_hours:
            wrong.append("schedule_tz needs schedule_hours")
        if self.schedule_tz and kind == "interval_cron":
            wrong.append("schedule_tz has no meaning for an interval: give schedule_hours")
        return wrong

    def _other_mistakes(self) -> list[str]:
        wrong = [
            f"{name!r} can't be overridden: names are DBT_ and capital letters, digits and underscores"
            for name in self.environment_variables
            if not _VARIABLE_NAME.fullmatch(name)
        ]
        if sum(map(bool, (self.deferring_environment_id, self.deferring_job_id, self.self_deferring))) > 1:
            wrong.append("deferring_environment_id, deferring_job_id and self_deferring exclude each other")
        if self.run_compare_changes and not self.deferring_environment_id:
            wrong.append("run_compare_changes needs deferring_environment_id")
        for step in self.execute_steps:
            try:
                words = shlex.split(step)
            except ValueError as exc:
                wrong.append(f"step {step!r}: {exc}")
                continue
            if words[:1] != ["dbt"] or not _COMMANDS.intersection(words[1:]):
                wrong.append(f"step {step!r} is not a dbt command")
        return wrong

    @property
    def is_scheduled(self) -> bool:
        """Return whether dbt Cloud starts it on a schedule."""
        return self.schedule_type != "manual"

    @property
    def local_cron(self) -> str | None:
        """Return the cron line in its time zone; None where it has no time zone."""
        if not self.schedule_tz or not self.is_scheduled:
            return None
        if self.schedule_cron:
            return self.schedule_cron
        hours = ",".join(str(hour) for hour in self.schedule_hours or [0])
        days = ",".join(str(day) for day in self.schedule_days or []) or "*"
        return f"0 {hours} * * {days}"

    @property
    def key(self) -> str:
        """Return its key among the jobs of its file."""
        return self.identifier or self.name

    def with_values(self, environ: Mapping[str, str]) -> JobDefinition:
        """Return the job with values from the environment; a value whose variable is not set stays as it is."""
        if not any(value.startswith(ENV_PREFIX) for value in self.environment_variables.values()):
            return self
        values = {
            name: environ.get(value.removeprefix(ENV_PREFIX), value) if value.startswith(ENV_PREFIX) else value
            for name, value in self.environment_variables.items()
        }
        return self.model_copy(update={"environment_variables": values})

    def secrets_in_clear(self) -> list[str]:
        """Return the names of secrets whose values are in the file itself."""
        return [
            name
            for name, value in self.environment_variables.items()
            if name.startswith(SECRET_PREFIX) and not value.startswith(ENV_PREFIX)
        ]
