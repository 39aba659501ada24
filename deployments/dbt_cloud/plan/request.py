"""Combine options, files and the environment, in this order of precedence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deployments.dbt_cloud.files.config import YAML, Config
from deployments.dbt_cloud.files.job_yaml import read_variables
from deployments.dbt_cloud.files.reading import load_config
from deployments.dbt_cloud.model.names import Owner, branch_of_slug
from deployments.dbt_cloud.plan.planning import places
from deployments.dbt_cloud.plan.scope import IdentifierScope, OwnerScope, Scope, projects_of
from infrastructure.errors import ConfigError
from infrastructure.plain_text import count_of

DEFAULT_TEAM = "analytics-team"
# As GitLab and GitHub set them. The full name of a branch is preferred to its slug, from which it is guessed.
_BRANCH_NAMES = ("CI_COMMIT_REF_NAME", "GITHUB_HEAD_REF", "GITHUB_REF_NAME")
_SLUG_NAME = "CI_COMMIT_REF_SLUG"
_USER_NAMES = ("GITLAB_USER_LOGIN", "GITHUB_ACTOR")


@dataclass(frozen=True)
class JobsRequest:
    """The options of the command line; None and empty where an option was not given.

    Attributes:
        is_production: the team's production jobs, not a branch's.
        only_environments: of a YAML file's jobs, those in these environments.
    """

    files: tuple[str, ...] = ()
    variable_files: tuple[str, ...] = ()
    account_id: int | None = None
    project_id: int | None = None
    environment_id: int | None = None
    team: str | None = None
    branch: str | None = None
    user: str | None = None
    is_production: bool = False
    only_environments: tuple[int, ...] = ()


def load(request: JobsRequest, environ: Mapping[str, str]) -> Config:
    """Read the files of a request, completed by its options and the environment.

    Raises:
        ConfigError: a file, an option or a variable is wrong.
    """
    config = load_config(request.files, read_variables(request.variable_files))
    jobs = config.jobs
    if request.only_environments:
        jobs = tuple(job for job in jobs if job.environment_id in request.only_environments)
    project = request.project_id or config.project_id or number(environ, "PROJECT_ID")
    environment = request.environment_id or config.environment_id or number(environ, "ENVIRONMENT_ID")
    account = request.account_id or config.account_id
    return replace(config, jobs=jobs, account_id=account, project_id=project, environment_id=environment)


def with_values(config: Config, environ: Mapping[str, str]) -> Config:
    """Return a config with the values of environment variables in place of `env:NAME`."""
    return replace(config, jobs=tuple(job.with_values(environ) for job in config.jobs))


def team_of(request: JobsRequest, environ: Mapping[str, str], config: Config | None = None) -> str:
    """Return the team from the option, the file, TEAM_NAME, or the default."""
    named = config.team_name if config is not None else None
    return request.team or named or environ.get("TEAM_NAME") or DEFAULT_TEAM


def owner_of(request: JobsRequest, environ: Mapping[str, str], config: Config | None = None) -> Owner:
    """Return the owner of the jobs.

    Raises:
        ConfigError: the branch or the user is not known.
    """
    team = team_of(request, environ, config)
    if request.is_production:
        return Owner(team)
    branch = request.branch or next((environ[name] for name in _BRANCH_NAMES if environ.get(name)), None)
    if branch is None and environ.get(_SLUG_NAME):
        branch = branch_of_slug(environ[_SLUG_NAME])
    user = request.user or next((environ[name] for name in _USER_NAMES if environ.get(name)), None)
    missing = [
        text
        for text, value in (
            (f"the branch (--branch, or {_BRANCH_NAMES[0]} or {_SLUG_NAME})", branch),
            (f"the user (--user, or {_USER_NAMES[0]})", user),
        )
        if not value
    ]
    if missing:
        raise ConfigError(
            f"The owner of the jobs is unknown: {' and '.join(missing)} is missing. "
            "For the team's production jobs, give --production."
        )
    return Owner(team, branch, user)


def scope_of(request: JobsRequest, environ: Mapping[str, str], config: Config) -> Scope:
    """Return the scope: which jobs of dbt Cloud the files describe.

    Files of dbt-jobs-as-code name jobs by identifier, unless a branch or --production is asked for by option.

    Raises:
        ConfigError: the branch or the user is not known, or a job has no project or environment.
    """
    pairs = frozenset(places(job, config) for job in config.jobs)
    if config.form == YAML and not (request.branch or request.is_production):
        if not pairs:
            raise ConfigError("The files have no jobs, so that the project whose jobs to delete is unknown.")
        return IdentifierScope(pairs)
    owner = owner_of(request, environ, config)
    if owner.branch is None:
        # Two environments can each have a production job of one name; a file describes its own.
        return OwnerScope(owner, projects_of(config.jobs, config.project_id), frozenset(it for _, it in pairs))
    return OwnerScope(owner, projects_of(config.jobs, config.project_id))


def number(environ: Mapping[str, str], name: str) -> int | None:
    """Return a number of the environment; None when it is not set.

    Raises:
        ConfigError: it is not a number.
    """
    text = environ.get(name)
    if not text:
        return None
    if not text.isdigit():
        raise ConfigError(f"{name} has to be a number, not {text!r}.")
    return int(text)


def warnings_of(config: Config) -> list[str]:
    """Return warnings about jobs that are valid but may be a mistake."""
    found = [
        f'{job.key}: the value of {name} is in the file; write "env:NAME" and set NAME where you deploy from'
        for job in config.jobs
        for name in job.secrets_in_clear()
    ]
    found += [
        f"{job.key}: the description has {count_of(len(job.description), 'letter')} and is cut to make room for the "
        "stamp"
        for job in config.jobs
        if len(job.description) > _ROOM
    ]
    return found


# The characters that a usual stamp leaves of dbt Cloud's 255.
_ROOM = 170


def described(jobs: Sequence[object]) -> str:
    """Return how many jobs there are, in words."""
    return count_of(len(jobs), "job")
