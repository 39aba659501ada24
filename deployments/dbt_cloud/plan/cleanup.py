"""Plan the deletion of branch jobs: those last deployed long ago, or whose branch is gone from git."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from deployments.dbt_cloud.model.changes import BLOCKED, DELETE, ChangeSet, JobChange
from deployments.dbt_cloud.model.job_object import Json, version
from deployments.dbt_cloud.model.names import BRANCH, branch_slug, stamp_of
from deployments.dbt_cloud.plan.planning import Options, changed_by_hand
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.git.process import Location, git_environment
from infrastructure.plan import UNCHANGED

OLDER_THAN_DAYS = 7
# A branch may be deployed before it is pushed: such jobs are not deleted.
DELETED_AFTER = timedelta(hours=1)
_GIT_SECONDS = 60
_TOKEN = re.compile(r"//[^/@\s]*@")


def plan_cleanup(
    account_id: int,
    team: str,
    jobs: Sequence[Json],
    now: datetime,
    older_than_days: float = OLDER_THAN_DAYS,
    branches: Collection[str] | None = None,
    options: Options | None = None,
) -> ChangeSet:
    """Return the deletions, and the jobs named like a team's branch jobs but without a valid stamp.

    Args:
        branches: all branches in git; None where they are unknown, so that age alone decides.
    """
    options = options or Options()
    known = {branch_slug(branch) for branch in branches} if branches is not None else None
    limit = now - timedelta(days=older_than_days)
    changes: list[JobChange] = []
    for job in jobs:
        stamp = stamp_of(job)
        if stamp is None or stamp.kind != BRANCH or not stamp.is_of_team(team):
            continue
        change = JobChange(
            name=job["name"],
            action=UNCHANGED,
            key=stamp.job,
            project_id=job["project_id"],
            environment_id=job["environment_id"],
            job_id=job["id"],
            seen=version(job),
        )
        days = (now - stamp.deployed_at) / timedelta(days=1)
        if stamp.deployed_at < limit:
            change = replace(change, action=DELETE, reason=f"last deployed {days:.0f} days ago")
        elif known is not None and stamp.branch not in known and now - stamp.deployed_at > DELETED_AFTER:
            change = replace(change, action=DELETE, reason=f"branch {stamp.branch_name} is gone from git")
        if change.action == DELETE and not options.force and (by_hand := changed_by_hand(job)):
            change = replace(change, action=BLOCKED, reason=f"{change.reason}, but {by_hand}; --force deletes it")
        changes.append(change)
    return ChangeSet(account_id=account_id, scope=f"{team}, all branches", changes=tuple(changes))


def git_branches(remote: str) -> frozenset[str]:
    """Return the branches that a remote has.

    Raises:
        UpstreamUnavailable: git can't reach it.
        ConfigError: it has none, as with a wrong address, which must not delete anything.
    """
    if remote.startswith("-"):
        raise ConfigError(f"{remote!r} is not a git remote.")
    # The remote's address in a CI pipeline contains its token.
    shown = _TOKEN.sub("//", remote)
    try:
        done = subprocess.run(
            ["git", "ls-remote", "--heads", "--", remote],
            env=git_environment(os.environ, Location(remote, is_url=True)),
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UpstreamUnavailable(f"git could not read the branches of {shown} in time.") from exc
    if done.returncode:
        raise UpstreamUnavailable(
            f"git could not read the branches of {shown}: {_TOKEN.sub('//', done.stderr).strip()[-300:]}"
        )
    found = {line.partition("\t")[2].removeprefix("refs/heads/") for line in done.stdout.splitlines() if "\t" in line}
    if not found:
        raise ConfigError(f"The git remote {shown} has no branches; is its address right? Nothing is deleted.")
    return frozenset(found)
