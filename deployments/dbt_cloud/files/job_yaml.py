"""Read and write jobs in the YAML of dbt-jobs-as-code, templates and anchors included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from deployments.dbt_cloud.files.config import YAML, Config, definitions
from deployments.dbt_cloud.model.definition import JobDefinition
from infrastructure.errors import ConfigError
from infrastructure.yaml_file import parse_yaml

# Keys that dbt Cloud needs and that repeat other keys.
_PASSED_OVER = ("account_id", "deactivated", "generate_sources", "id", "run_failure_count", "state", "job_type")
_SAME_NAME = (
    "name",
    "project_id",
    "environment_id",
    "dbt_version",
    "deferring_environment_id",
    "run_generate_sources",
    "run_lint",
    "errors_on_lint_failure",
    "execute_steps",
    "generate_docs",
    "description",
    "run_compare_changes",
    "compare_changes_flags",
    "cost_optimization_features",
    "triggers_on_draft_pr",
    "linked_id",
    "self_deferring",
)
_ELSEWHERE = (
    "settings",
    "execution",
    "triggers",
    "schedule",
    "custom_environment_variables",
    "job_completion_trigger_condition",
    "deferring_job_definition_id",
    "run_after",
    "identifier",
)
_WITHOUT_SCHEDULE = ("ci", "merge")
_DELETED = 2


def read_job_yaml(files: Sequence[Path], variables: Mapping[str, Any]) -> Config:
    """Read job files; jobs of a later file are added to those of an earlier one.

    Raises:
        ConfigError: a file is not YAML, a template names an unknown variable, or a job is wrong.
    """
    entries: list[tuple[str, object]] = []
    accounts: set[int] = set()
    seen: dict[str, Path] = {}
    for path in files:
        for identifier, job in _jobs_of(path, variables):
            if identifier in seen:
                raise ConfigError(f"The identifier {identifier!r} is in {seen[identifier]} and in {path}.")
            seen[identifier] = path
            if (account := job.get("account_id")) is not None:
                accounts.add(_whole(account, f"{path}: jobs.{identifier}.account_id"))
            if job.get("state", 1) != _DELETED:
                entries.append((f"{path}: jobs.{identifier}", _fields(path, identifier, job)))
    if len(accounts) > 1:
        raise ConfigError(f"The jobs are of several accounts, {sorted(accounts)}: run once for each, with its files.")
    return Config(YAML, definitions(entries), account_id=next(iter(accounts), None))


def read_variables(files: Sequence[str]) -> dict[str, Any]:
    """Read the values of templates; a name in two files is an error, as it is for dbt-jobs-as-code."""
    values: dict[str, Any] = {}
    for name in files:
        document = parse_yaml(_text(Path(name)), name) or {}
        if not isinstance(document, dict):
            raise ConfigError(f"{name} has to be a mapping of names to values.")
        found = cast(dict[str, Any], document)
        if twice := sorted(values.keys() & found.keys()):
            raise ConfigError(f"{', '.join(twice)} is set twice: again in {name}.")
        values |= found
    return values


def write_job_yaml(jobs: Sequence[JobDefinition], account_id: int) -> str:
    """Return jobs as the text of a file that dbt-jobs-as-code reads too."""
    return yaml.safe_dump(
        {"jobs": {job.key: _as_yaml(job, account_id) for job in jobs}}, sort_keys=False, allow_unicode=True, width=110
    )


def _jobs_of(path: Path, variables: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    document = parse_yaml(_rendered(path, variables), path)
    jobs = cast(dict[str, Any], document).get("jobs") if isinstance(document, dict) else None
    if jobs is None:
        return []
    if not isinstance(jobs, dict):
        raise ConfigError(f"{path}: jobs has to be a mapping of identifiers to jobs.")
    found: list[tuple[str, dict[str, Any]]] = []
    for key, job in cast(dict[Any, Any], jobs).items():
        identifier = str(key)
        if not identifier or not all(letter.isalnum() or letter in "_-" for letter in identifier):
            raise ConfigError(f"{path}: the identifier {identifier!r} may have letters, digits, _ and - only.")
        if not isinstance(job, dict):
            raise ConfigError(f"{path}: jobs.{identifier} has to be a mapping.")
        found.append((identifier, cast(dict[str, Any], job)))
    return found


def _rendered(path: Path, variables: Mapping[str, Any]) -> str:
    text = _text(path)
    if "{{" not in text and "{%" not in text:
        return text
    from jinja2 import StrictUndefined, TemplateError, UndefinedError
    from jinja2.sandbox import SandboxedEnvironment

    # None is written as YAML's null.
    values = {name: "null" if value is None else value for name, value in variables.items()}
    try:
        # Job files are text, not markup, and the template belongs to the user who runs this.
        return SandboxedEnvironment(undefined=StrictUndefined, autoescape=False).from_string(text).render(values)
    except UndefinedError as exc:
        raise ConfigError(f"{path} is a template, and {exc.message}. Give its values with --vars-yml FILE.") from exc
    except TemplateError as exc:
        raise ConfigError(f"{path} is not a valid template: {exc}.") from exc


def _fields(path: Path, identifier: str, job: dict[str, Any]) -> dict[str, Any]:
    known = {*_PASSED_OVER, *_SAME_NAME, *_ELSEWHERE}
    # A template inside quotes turns null into text.
    out: dict[str, Any] = {name: job[name] for name in _SAME_NAME if job.get(name) not in (None, "null")}
    # Kept, so that it is named among the mistakes.
    out |= {name: value for name, value in job.items() if name not in known}
    out["identifier"] = identifier
    settings, triggers = _part(job, "settings"), _part(job, "triggers")
    out |= {name: settings[name] for name in ("threads", "target_name") if settings.get(name) is not None}
    out["timeout_seconds"] = _part(job, "execution").get("timeout_seconds") or 0
    for name in ("github_webhook", "git_provider_webhook", "on_merge"):
        if triggers.get(name) is not None:
            out[name] = triggers[name]
    out |= _schedule(job, triggers)
    if (job_type := job.get("job_type")) not in (None, "scheduled", "other"):
        out["job_type"] = job_type
    if job.get("deferring_job_definition_id") is not None:
        out["deferring_job_id"] = job["deferring_job_definition_id"]
    if after := job.get("run_after"):
        out["run_after"] = {"job": after} if isinstance(after, str) else after
    if condition := _part(job, "job_completion_trigger_condition").get("condition"):
        out["run_after"] = {
            "job": condition["job_id"],
            "project_id": condition.get("project_id"),
            "statuses": condition.get("statuses") or [10, 20, 30],
        }
    out["environment_variables"] = _variables(path, identifier, job)
    return out


def _schedule(job: dict[str, Any], triggers: dict[str, Any]) -> dict[str, Any]:
    schedule = _part(job, "schedule")
    wanted = triggers.get("schedule")
    if isinstance(wanted, str):
        wanted = wanted.strip().lower() == "true"
    if not wanted or job.get("job_type") in _WITHOUT_SCHEDULE:
        return {"schedule_type": "manual"}
    out: dict[str, Any] = {"schedule_type": "custom_cron", "schedule_cron": schedule.get("cron")}
    if schedule.get("tz"):
        out["schedule_tz"] = schedule["tz"]
    return out


def _variables(path: Path, identifier: str, job: dict[str, Any]) -> dict[str, Any]:
    listed = job.get("custom_environment_variables") or []
    if isinstance(listed, dict):
        return cast(dict[str, Any], listed)
    out: dict[str, Any] = {}
    for entry in cast(list[Any], listed):
        if not isinstance(entry, dict) or len(cast(dict[str, Any], entry)) != 1:
            raise ConfigError(
                f"{path}: jobs.{identifier}.custom_environment_variables takes entries such as `- DBT_X: value`."
            )
        out |= cast(dict[str, Any], entry)
    return out


def _as_yaml(job: JobDefinition, account_id: int) -> dict[str, Any]:
    out: dict[str, Any] = {"account_id": account_id}
    fields = job.model_dump(exclude_defaults=True)
    out |= {name: fields[name] for name in _SAME_NAME if name in fields}
    out |= {
        "name": job.name,
        "settings": {"threads": job.threads, "target_name": job.target_name},
        "execution": {"timeout_seconds": job.timeout_seconds},
        "generate_docs": job.generate_docs,
        "run_generate_sources": job.run_generate_sources,
        "triggers": {
            "github_webhook": job.github_webhook,
            "git_provider_webhook": job.git_provider_webhook,
            "schedule": job.is_scheduled,
            "on_merge": job.on_merge,
        },
        "schedule": {"cron": job.schedule_cron or "0 0 1 1 *"},
    }
    if job.job_type:
        out["job_type"] = job.job_type
    if job.deferring_job_id:
        out["deferring_job_definition_id"] = job.deferring_job_id
    if job.run_after is not None and job.run_after.job.isdigit():
        from deployments.dbt_cloud.model.definition import STATUSES

        condition = {
            "job_id": int(job.run_after.job),
            "project_id": job.run_after.project_id or job.project_id,
            "statuses": sorted({STATUSES[word] for word in job.run_after.statuses}),
        }
        out["job_completion_trigger_condition"] = {"condition": condition}
    if job.environment_variables:
        out["custom_environment_variables"] = [{name: value} for name, value in job.environment_variables.items()]
    return out


def _part(job: dict[str, Any], name: str) -> dict[str, Any]:
    part = job.get(name)
    return cast(dict[str, Any], part) if isinstance(part, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{path} can't be read: {exc.strerror}.") from exc


def _whole(value: object, place: str) -> int:
    if isinstance(value, int | str) and str(value).isdigit():
        return int(value)
    raise ConfigError(f"{place} has to be a number, not {value!r}.")
