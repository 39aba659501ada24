"""The content of job files of any form; all mistakes of all files are named at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from deployments.dbt_cloud.model.definition import JobDefinition
from infrastructure.errors import ConfigError
from infrastructure.plain_text import count_of

TFVARS, YAML = "tfvars", "yaml"


@dataclass(frozen=True)
class Config:
    """The content of job files.

    Attributes:
        form: TFVARS or YAML; it decides how jobs are named in dbt Cloud.
        account_id: None where the files do not set it; likewise the next three.
    """

    form: str
    jobs: tuple[JobDefinition, ...]
    account_id: int | None = None
    project_id: int | None = None
    environment_id: int | None = None
    team_name: str | None = None


def definitions(entries: Iterable[tuple[str, object]]) -> tuple[JobDefinition, ...]:
    """Return definitions from the entries of files, each with the place to name in an error.

    Raises:
        ConfigError: with every mistake of every job.
    """
    jobs: list[JobDefinition] = []
    wrong: list[str] = []
    for place, fields in entries:
        try:
            jobs.append(JobDefinition.model_validate(fields))
        except ValidationError as exc:
            wrong += [f"  {place}{_where(error['loc'])}: {_words(error)}" for error in exc.errors()]
    if wrong:
        count = count_of(len(wrong), "mistake")
        raise ConfigError("\n".join([f"The jobs have {count}:", *wrong]))
    return tuple(jobs)


def check_jobs(jobs: Sequence[JobDefinition]) -> None:
    """Check all jobs together: names must be unique, and completion triggers must not form a circle.

    Raises:
        ConfigError: with every mistake.
    """
    wrong: list[str] = []
    seen: dict[str, str] = {}
    for job in jobs:
        folded = job.key.casefold()
        if folded in seen:
            wrong.append(f"  job {job.key!r} is there twice, the other time as {seen[folded]!r}")
        seen[folded] = job.key
    try:
        in_order(jobs)
    except ConfigError as exc:
        wrong.append(f"  {exc}")
    if wrong:
        raise ConfigError("\n".join(["The jobs do not fit together:", *wrong]))


def in_order(jobs: Sequence[JobDefinition]) -> list[list[JobDefinition]]:
    """Return the jobs in steps, so that each comes after the one whose end starts it.

    Raises:
        ConfigError: they wait for each other in a circle.
    """
    names = {name: job.key for job in jobs for name in (job.key, job.name)}
    waiting = {job.key: job for job in jobs}
    steps: list[list[JobDefinition]] = []
    while waiting:
        step = [job for job in waiting.values() if job.run_after is None or names.get(job.run_after.job) not in waiting]
        if not step:
            raise ConfigError(f"run_after goes in a circle: {', '.join(sorted(waiting))}.")
        steps.append(step)
        for job in step:
            del waiting[job.key]
    return steps


def _where(place: tuple[int | str, ...]) -> str:
    return "".join(f".{part}" if isinstance(part, str) else f"[{part}]" for part in place)


def _words(error: Any) -> str:  # noqa: ANN401  (pydantic's own mapping)
    if error["type"] == "extra_forbidden":
        near = get_close_matches(str(error["loc"][-1]), list(JobDefinition.model_fields), n=1)
        return f"no such setting{f', did you mean {near[0]}?' if near else ''}"
    if error["type"] == "missing":
        return "is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    # A short value is shown; never a whole job, which may contain values of variables.
    return f"{message}, not {given!r}" if isinstance(given, int | str) and len(str(given)) < 60 else message
