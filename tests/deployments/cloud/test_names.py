"""Names of jobs: safe, one for each branch, and proof of whose they are."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.dbt_cloud.model.names import (
    MAX_BRANCH,
    MAX_DESCRIPTION,
    Owner,
    branch_of_slug,
    branch_slug,
    stamp_of,
    unslug,
    without_stamp,
)
from deployments.dbt_cloud.plan.scope import OwnerScope
from infrastructure.errors import ConfigError
from tests.support.cloud.jobs import BRANCH, job

NOW = datetime(2026, 11, 21, 15, 30, tzinfo=UTC)
BRANCHES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/#+-]{0,120}", fullmatch=True)


def stamped_job(owner: Owner = BRANCH, name: str = "core", description: str = "") -> dict[str, object]:
    definition = job(name, description=description)
    scope = OwnerScope(owner, (11,))
    document = {"account_id": 1, "project_id": 11, "environment_id": 22, "name": scope.name_of(definition)}
    return scope.stamp(definition, {**document, "description": description}, NOW)


def test_names_are_those_of_the_document() -> None:
    assert BRANCH.job_name("core-daily-refresh") == "analytics-team-feature-new-analysis-john-doe-core-daily-refresh"
    assert Owner("analytics-team").job_name("core-daily-refresh") == "analytics-team-core-daily-refresh"
    # Only the slug is known to some pipelines: it stands in the name as it is.
    assert branch_slug(branch_of_slug("feature-new-analysis")) == "feature-new-analysis"
    assert branch_slug("local-dev") == "local-dev"


@given(BRANCHES, BRANCHES)
def test_two_branches_never_share_a_name(one: str, other: str) -> None:
    assert (branch_slug(one) == branch_slug(other)) == (one == other)


@pytest.mark.parametrize("branch", ["feature/abc", "feature-abc", "Feature/abc", "feature/ABC", "feature/a/bc"])
def test_branches_that_clean_to_the_same_are_told_apart(branch: str) -> None:
    others = {"feature/abc", "feature-abc", "Feature/abc", "feature/ABC", "feature/a/bc"} - {branch}
    assert branch_slug(branch) not in {branch_slug(other) for other in others}


@given(BRANCHES)
def test_a_branch_is_safe_in_a_name_and_read_back_from_it(branch: str) -> None:
    safe = branch_slug(branch)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", safe)
    assert len(safe) <= MAX_BRANCH
    stamp = stamp_of(stamped_job(Owner("team", branch, "jane.smith")))
    assert stamp
    assert (stamp.team, stamp.branch, stamp.user, stamp.job) == ("team", safe, "jane-smith", "core")
    assert stamp.original_user == "jane.smith"
    assert stamp.branch_name == branch or stamp.branch_name.startswith("~") or unslug(safe) == branch
    assert stamp.is_of(Owner("team", branch, "jane.smith"))
    assert not stamp.is_of(Owner("team", branch, "john"))
    assert not stamp.is_of(Owner("team"))


def test_parts_with_hyphens_are_taken_apart_by_the_stamp() -> None:
    """`a-b` of user `c` and `a` of user `b-c` have jobs of one name, and do not take each other's."""
    one, other = Owner("t", "a-b", "c"), Owner("t", "a", "b-c")
    assert one.job_name("x") == other.job_name("x")
    stamp = stamp_of(stamped_job(one, "x"))
    assert stamp
    assert stamp.is_of(one)
    assert not stamp.is_of(other)


def test_a_job_that_was_renamed_copied_or_moved_proves_nothing() -> None:
    job = stamped_job()
    assert stamp_of(job)
    assert stamp_of({**job, "name": f"{job['name']} (copy)"}) is None
    assert stamp_of({**job, "project_id": 12}) is None
    assert stamp_of({**job, "account_id": 2}) is None
    assert stamp_of({**job, "description": str(job["description"]).replace("n=14.", "n=13.")}) is None
    assert stamp_of({**job, "description": "analytics"}) is None


@given(st.text(max_size=400), BRANCHES)
def test_a_stamp_always_fits_and_leaves_the_description_as_it_was(description: str, branch: str) -> None:
    job = stamped_job(Owner("analytics-team", branch, "jane"), description=description)
    text = str(job["description"])
    assert len(text) <= MAX_DESCRIPTION
    assert stamp_of(job)
    kept = without_stamp(text)
    assert kept == description.strip() or (kept.endswith("…") and description.strip().startswith(kept[:-1].rstrip()))


def test_a_name_that_is_too_long_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"letters of 255\. Give it a shorter name"):
        BRANCH.job_name("x" * 230)
    with pytest.raises(ConfigError, match="no letter or digit"):
        Owner("team", "日本", "user").job_name("x")
