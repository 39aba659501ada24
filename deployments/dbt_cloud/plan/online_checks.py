"""Check that the environments and variables of job files exist in dbt Cloud."""

from __future__ import annotations

import asyncio

from deployments.dbt_cloud.files.config import Config
from deployments.dbt_cloud.plan.planning import places
from flows.services.dbt_cloud.client import CloudClient
from infrastructure.errors import ConfigError


async def check_online(client: CloudClient, config: Config) -> None:
    """Check that dbt Cloud has what the jobs need.

    Raises:
        ConfigError: lists everything that is missing.
    """
    jobs = {job.key: (job, *places(job, config)) for job in config.jobs}
    projects = sorted({project for _, project, _ in jobs.values()})
    environments = dict(zip(projects, await asyncio.gather(*map(client.environments, projects)), strict=True))
    declared = dict(zip(projects, await asyncio.gather(*map(client.project_variables, projects)), strict=True))
    wrong: list[str] = []
    for key, (job, project, environment) in jobs.items():
        if environment not in {it["id"] for it in environments[project]}:
            wrong.append(f"{key}: project {project} has no environment {environment}")
        if unknown := sorted(job.environment_variables.keys() - declared[project]):
            wrong.append(f"{key}: project {project} does not declare {', '.join(unknown)}, so it can't be overridden")
    if wrong:
        raise ConfigError("\n".join(["dbt Cloud lacks what the jobs need:", *(f"  {it}" for it in wrong)]))
