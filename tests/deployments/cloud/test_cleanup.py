"""Cleaning up: only what is proven to be an old branch job of this team, and nothing that can't be put back."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployments.dbt_cloud.model.job_object import job_object
from deployments.dbt_cloud.model.names import Owner
from deployments.dbt_cloud.plan.cleanup import git_branches, plan_cleanup
from deployments.dbt_cloud.plan.scope import OwnerScope
from infrastructure.errors import ConfigError, UpstreamUnavailable
from tests.support.cloud.jobs import BRANCH, Cloud, job
from tests.support.cloud.server import ACCOUNT

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TEAM = "analytics-team"


def old(days: float, owner: Owner = BRANCH, name: str = "core", job_id: int = 1, **changed: Any) -> dict[str, Any]:
    """A job that was deployed so many days ago; what is `changed` was changed by hand."""
    scope, definition = OwnerScope(owner, (11,)), job(name)
    deployed_at = NOW - timedelta(days=days)
    document = job_object(definition, scope.name_of(definition), ACCOUNT, 11, 22, deployed_at)
    # Made long before: what counts is the last deployment.
    made = {"id": job_id, "created_at": "2025-01-01T00:00:00Z"}
    return {**scope.stamp(definition, document, deployed_at), **made, **changed}


def actions(*jobs: dict[str, Any], **options: Any) -> list[str]:
    return [change.action for change in plan_cleanup(ACCOUNT, TEAM, jobs, NOW, 7, **options).changes]


def test_age_is_counted_from_the_last_deployment() -> None:
    assert actions(old(7.1), old(6.9)) == ["delete", "unchanged"]


def test_only_proven_branch_jobs_of_the_team_are_looked_at() -> None:
    renamed = {**old(99), "name": old(99)["name"] + " v2"}
    unstamped = {**old(99), "description": "by hand"}
    assert actions(renamed, unstamped, old(99, Owner(TEAM)), old(99, Owner("analytics", "team/x", "jane"))) == []


def test_a_job_changed_by_hand_is_kept() -> None:
    assert actions(old(99, settings={"threads": 8, "target_name": "default"})) == ["blocked"]


def test_branches_that_git_no_longer_has_go_before_their_time() -> None:
    new, gone = old(0.5, Owner(TEAM, "feature/a", "jane")), old(0.5, Owner(TEAM, "Feature/B", "jane"))
    assert actions(new, gone, branches={"main", "feature/a"}) == ["unchanged", "delete"]
    # Deployed a minute ago, and perhaps not pushed yet.
    assert actions(old(0.001), branches={"main"}) == ["unchanged"]


def test_branches_are_read_from_git_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, "-C", tmp_path, *arguments], check=True, capture_output=True)

    git("init", "-b", "main")
    with pytest.raises(ConfigError, match="has no branches; is its address right"):
        git_branches(str(tmp_path))
    git("commit", "--allow-empty", "-m", "first")
    git("branch", "feature/a")
    assert git_branches(str(tmp_path)) == {"main", "feature/a"}
    with pytest.raises(UpstreamUnavailable, match="git could not read the branches"):
        git_branches(str(tmp_path / "nowhere"))


def test_what_was_deleted_is_put_back_from_the_journal(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "jobs.tfvars"
    path.write_text(
        """
        jobs = [
          { name = "a", execute_steps = ["dbt build"], environment_variables = { DBT_REGION = "eu" } },
          { name = "b", execute_steps = ["dbt test"], self_deferring = true, run_after = { job = "a" } },
        ]
        """
    )
    cloud.command("deploy", "--config", str(path))
    before = cloud.jobs
    shown = cloud.command("cleanup", "--older-than", "0", "--dry-run").output
    assert "2 to delete" in shown
    assert cloud.jobs == before
    assert (
        "at most 1 may be; nothing was changed"
        in cloud.command("cleanup", "--older-than", "0", "--max-deletions", "1", code=2).output
    )
    said = cloud.command("cleanup", "--older-than", "0").output
    assert cloud.jobs == {}
    journal = said.split("restore --journal ")[1].strip()
    cloud.command("restore", "--journal", journal)
    assert cloud.jobs.keys() == before.keys()
    assert "nothing to do, 2 as they should be" in cloud.command("plan", "--config", str(path)).output
    # Once is enough.
    assert "0 jobs to restore" in cloud.command("restore", "--journal", str(cloud.state), "--dry-run").output
    assert "0 jobs restored" in cloud.command("restore", "--journal", str(Path(journal).parent)).output


def test_what_one_machine_deleted_another_puts_back_and_nothing_is_deleted_that_could_not_be(
    cloud: Cloud, bucket: str, tfvars: Path, tmp_path: Path
) -> None:
    def machine(name: str, url: str = f"{bucket}/cloud") -> dict[str, str]:
        return {"TRIBUTARY_STATE": url, "TRIBUTARY_STATE_COPY": str(tmp_path / name)}

    cloud.command("deploy", "--config", str(tfvars))
    before = cloud.jobs
    refused = machine("one", "s3://there-is-no-such-bucket/cloud")
    said = cloud.command("cleanup", "--older-than", "0", code=1, **refused).output
    assert "The state at s3://there-is-no-such-bucket/cloud can't be written to" in said
    assert cloud.jobs == before

    said = cloud.command("cleanup", "--older-than", "0", **machine("one")).output
    assert cloud.jobs == {}
    shutil.rmtree(tmp_path / "one")
    journal = said.split("restore --journal ")[1].strip()
    assert "There is no journal x in" in cloud.command("restore", "--journal", "x", code=2, **machine("other")).output
    cloud.command("restore", "--journal", journal, **machine("other"))
    assert cloud.jobs.keys() == before.keys()
