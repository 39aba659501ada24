"""An account of dbt Cloud on this machine, a client of it, and what is deployed to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from click.testing import CliRunner, Result

from deployments.dbt_cloud.__main__ import main
from deployments.dbt_cloud.apply.work import with_client
from deployments.dbt_cloud.files.config import TFVARS as TFVARS_FORM
from deployments.dbt_cloud.files.config import Config
from deployments.dbt_cloud.model.definition import JobDefinition
from deployments.dbt_cloud.model.names import Owner
from deployments.dbt_cloud.plan.scope import OwnerScope
from flows.services.dbt_cloud.client import CloudClient
from flows.services.dbt_cloud.settings import CloudSettings
from tests.support.cloud.server import ACCOUNT, TOKEN, Account


def job_body(name: str) -> dict[str, Any]:
    flags = ["generate_docs", "run_generate_sources", "run_compare_changes", "run_lint", "errors_on_lint_failure"]
    return {
        "account_id": ACCOUNT,
        "project_id": 11,
        "environment_id": 22,
        "name": name,
        "execution": {"timeout_seconds": 0},
        "settings": {"threads": 4, "target_name": "prod"},
        "triggers": {"github_webhook": False, "schedule": False},
        "state": 1,
        "lifecycle_webhooks": False,
        **dict.fromkeys(flags, False),
    }


Answer = TypeVar("Answer")


PROJECT, ENVIRONMENT = 11, 22


BRANCH = Owner("analytics-team", "feature/new-analysis", "john-doe")


TFVARS = """
jobs = [
  {
    name           = "core-daily-refresh"
    description    = "Daily refresh of core foundational models"
    execute_steps  = ["dbt deps", "dbt run --select tag:core", "dbt test --select tag:core"]
    schedule_type  = "every_day"
    schedule_hours = [6] # 6 AM
    job_type       = "daily"
  },
  {
    name           = "customer-analytics"
    execute_steps  = ["dbt build --select tag:customers"]
    schedule_type  = "weekly"
    schedule_hours = [6, 18]
    schedule_days  = [1, 2, 3, 4, 5, 7]
  },
]
"""


def job(name: str = "core", **fields: Any) -> JobDefinition:
    return JobDefinition.model_validate({"name": name, "execute_steps": ["dbt build"], **fields})


def config(*jobs: JobDefinition) -> Config:
    return Config(TFVARS_FORM, jobs or (job(),), ACCOUNT, PROJECT, ENVIRONMENT)


def scope(owner: Owner = BRANCH) -> OwnerScope:
    return OwnerScope(owner, (PROJECT,))


class Cloud:
    """An account that is served, and what is done with it."""

    def __init__(self, account: Account, address: str, state: Path) -> None:
        self.account, self.address, self.state = account, address, state
        self.settings = CloudSettings(
            ACCOUNT, TOKEN, address, 1e6, cooldown_seconds=0.2, timeout_seconds=10.0, backoff_seconds=0.01
        )

    def do(self, work: Callable[[CloudClient], Awaitable[Answer]], **settings: Any) -> Answer:
        return with_client(replace(self.settings, **settings), work)

    def command(self, *arguments: str, code: int = 0, **environment: str) -> Result:
        variables = {
            "DBTCLOUD_HOST_URL": self.address,
            "DBTCLOUD_ACCOUNT_ID": str(ACCOUNT),
            "DBTCLOUD_TOKEN": TOKEN,
            "PROJECT_ID": str(PROJECT),
            "ENVIRONMENT_ID": str(ENVIRONMENT),
            "CI_COMMIT_REF_NAME": BRANCH.branch,
            "GITLAB_USER_LOGIN": BRANCH.user,
            "TRIBUTARY_STATE": str(self.state),
            **environment,
        }
        done = CliRunner().invoke(main, arguments, env=variables)
        assert TOKEN not in done.output
        assert done.exit_code == code, done.output
        return done

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """The active jobs by name; two of one name are a failure in themselves."""
        active = [it for it in self.account.jobs.values() if it["state"] == 1]
        assert len({it["name"] for it in active}) == len(active)
        return {it["name"]: it for it in active}

    def stranger(self, name: str, **fields: Any) -> dict[str, Any]:
        """Create a job that somebody else made."""
        from datetime import UTC, datetime

        from deployments.dbt_cloud.model.job_object import job_object, sendable

        document = job_object(job(name), name, ACCOUNT, PROJECT, ENVIRONMENT, datetime.now(UTC))
        return self.account.create(sendable({}, {**document, "description": "somebody else's", **fields}))
