"""Names of jobs with their owner, and the stamp in a job's description that proves it.

A branch's job is named `{team}-{branch}-{user}-{job}`, one for production `{team}-{job}`. All parts may have hyphens,
so a name alone can't be split. The stamp has the length of each part, the time of the last deployment and a fingerprint
of the job then; its checksum ties it to the account, the project and the name. A job that was renamed or copied by
hand no longer matches its stamp, and is never changed.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from base64 import b32encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from infrastructure.errors import ConfigError
from infrastructure.plain_text import count_of

# dbt Cloud's limit of a description; for names it documents none, so the usual column length.
MAX_DESCRIPTION = 255
MAX_NAME = 255
MAX_TEAM = 40
# The length of GitLab's CI_COMMIT_REF_SLUG, so that most names look familiar.
MAX_BRANCH = 63
MAX_USER = 40
_MAX_ORIGINAL = 60

_PREFIXES = [
    "feature",
    "feat",
    "bugfix",
    "bug",
    "fix",
    "hotfix",
    "release",
    "chore",
    "docs",
    "refactor",
    "test",
    "ci",
    "perf",
    "build",
    "style",
    "revert",
    "task",
    "spike",
    "experiment",
    "dependabot",
    "renovate",
]
_PREFIXED = re.compile(rf"({'|'.join(_PREFIXES)})-(.+)")
_STAMP = re.compile(
    r"\s*\[\[tributary (?P<kind>[bpi]) n=(?P<team>\d+)\.(?P<branch>\d+)\.(?P<user>\d+)"
    r" at=(?P<at>\d{8}T\d{4}Z) h=(?P<hash>[0-9a-f]{10})"
    r"(?: b=(?P<original>[^\s\]]+))?(?: u=(?P<login>[^\s\]]+))?(?: s=(?P<schedule>[^\]]+?))?"
    r" c=(?P<check>[0-9a-f]{8})\]\]\s*$"
)
IDENTIFIER = re.compile(r"\s*\[\[(?:(?P<filter>[*a-zA-Z0-9_-]*):)?(?P<identifier>[a-zA-Z0-9_-]+)\]\]\s*$")
_TIME = "%Y%m%dT%H%MZ"

BRANCH, PRODUCTION, IDENTIFIED = "b", "p", "i"


@dataclass(frozen=True)
class Owner:
    """Whose jobs: a team's production, or one user's branch of it.

    Attributes:
        branch: as git spells it; None for production.
        user: as the git host spells it; None for production.
    """

    team: str
    branch: str | None = None
    user: str | None = None

    @property
    def kind(self) -> str:
        """Return the letter of the stamp."""
        return PRODUCTION if self.branch is None else BRANCH

    @property
    def parts(self) -> tuple[str, str, str]:
        """Return team, branch and user as in names; empty for those that production does not have."""
        return (
            slug(self.team, MAX_TEAM),
            branch_slug(self.branch) if self.branch is not None else "",
            slug(self.user, MAX_USER) if self.user is not None else "",
        )

    @property
    def prefix(self) -> str:
        """Return the prefix of the names of all these jobs."""
        return "-".join(part for part in self.parts if part) + "-"

    def job_name(self, job: str) -> str:
        """Return the name of a job in dbt Cloud.

        Raises:
            ConfigError: it would be longer than dbt Cloud allows.
        """
        name = self.prefix + job
        if len(name) > MAX_NAME:
            raise ConfigError(
                f"The job {job!r} would be named {name!r}, {count_of(len(name), 'letter')} of {MAX_NAME}. Give it a "
                "shorter name."
            )
        return name


@dataclass(frozen=True)
class Stamp:
    """The record of a job's last deployment in its description.

    Attributes:
        job: the name in the file: without team, branch and user.
        deployed_at: to the minute.
        fingerprint: of the job as it was deployed; if it differs in dbt Cloud, the job was changed by hand.
        original_branch: as git spells it, or `~` and a digest where that is long; None where it follows from the name.
        schedule: `cron@time zone` of a schedule with a time zone.
    """

    kind: str
    team: str
    branch: str
    user: str
    job: str
    deployed_at: datetime
    fingerprint: str
    original_branch: str | None = None
    original_user: str | None = None
    schedule: str | None = None

    def is_of(self, owner: Owner) -> bool:
        """Return whether the job is one of this owner's."""
        return self.kind == owner.kind and (self.team, self.branch, self.user) == owner.parts

    def is_of_team(self, team: str) -> bool:
        """Return whether the job is one of this team's, whatever the branch."""
        return self.team == slug(team, MAX_TEAM)

    @property
    def branch_name(self) -> str:
        """Return the branch as git spells it, as far as that is known."""
        return self.original_branch or unslug(self.branch)


def slug(text: str, limit: int) -> str:
    """Return a name's safe form: lower case letters of ASCII, digits and single hyphens.

    Raises:
        ConfigError: no letter or digit is left.
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")
    if not safe:
        raise ConfigError(f"{text!r} has no letter or digit for a job's name.")
    if len(safe) > limit:
        return f"{safe[: limit - 7].rstrip('-')}-{_digest(text)}"
    return safe


def unslug(safe: str) -> str:
    """Return the most likely branch of a slug: `feature-abc` was `feature/abc`."""
    found = _PREFIXED.fullmatch(safe)
    return f"{found[1]}/{found[2]}" if found else safe


def branch_slug(branch: str) -> str:
    """Return a branch's safe form, which differs for every branch.

    `feature/abc` becomes `feature-abc`, from which it can be read back. Every branch that could not be (`feature-abc`,
    `Feature/ABC`, `a/b/c`) gets a few letters of its digest behind it, so that no two share a name.
    """
    safe = slug(branch, MAX_BRANCH)
    if unslug(safe) == branch:
        return safe
    return f"{safe[: MAX_BRANCH - 7].rstrip('-')}-{_digest(branch)}"


def branch_of_slug(ref_slug: str) -> str:
    """Return a branch for a slug where the branch is unknown, so that its own slug is the same again."""
    return unslug(slug(ref_slug, MAX_BRANCH))


def stamped(description: str, stamp: Stamp, account_id: int, project_id: int, name: str) -> str:
    """Return a description with its stamp; one that is too long is cut and ends in an ellipsis."""
    lengths = f"{len(stamp.team)}.{len(stamp.branch)}.{len(stamp.user)}"
    words = [f"tributary {stamp.kind}", f"n={lengths}", f"at={stamp.deployed_at.astimezone(UTC).strftime(_TIME)}"]
    words.append(f"h={stamp.fingerprint}")
    if stamp.original_branch is not None:
        words.append(f"b={_kept(stamp.original_branch)}")
    if stamp.original_user is not None:
        words.append(f"u={_kept(stamp.original_user)}")
    if stamp.schedule is not None:
        words.append(f"s={stamp.schedule}")
    body = " ".join(words)
    text = f"[[{body} c={_check(body, account_id, project_id, name)}]]"
    room = MAX_DESCRIPTION - len(text) - 1
    shown = description.strip()
    if len(shown) > room:
        shown = shown[: max(0, room - 1)].rstrip() + "…"
    return f"{shown} {text}".strip()


def stamp_of(job: Mapping[str, Any]) -> Stamp | None:
    """Return the stamp of a job in dbt Cloud; None where it is missing, damaged or does not match the name."""
    description, name = str(job.get("description") or ""), str(job.get("name") or "")
    found = _STAMP.search(description)
    if found is None:
        return None
    body = found[0].strip()[2:-2].rpartition(" c=")[0]
    if found["check"] != _check(body, int(job["account_id"]), int(job["project_id"]), name):
        return None
    parts: list[str] = []
    rest = name
    if found["kind"] != IDENTIFIED:
        for length in (int(found[part]) for part in ("team", "branch", "user")):
            if length:
                parts.append(rest[:length])
                rest = rest[length + 1 :]
            else:
                parts.append("")
    team, branch, user = parts or ("", "", "")
    return Stamp(
        kind=found["kind"],
        team=team,
        branch=branch,
        user=user,
        job=rest,
        deployed_at=datetime.strptime(found["at"], _TIME).replace(tzinfo=UTC),
        fingerprint=found["hash"],
        original_branch=unquote(found["original"]) if found["original"] else None,
        original_user=unquote(found["login"]) if found["login"] else None,
        schedule=found["schedule"],
    )


def without_stamp(description: str) -> str:
    """Return a description as a person wrote it."""
    return _STAMP.sub("", description).strip()


def originals(owner: Owner) -> tuple[str | None, str | None]:
    """Return branch and user for the stamp, each None where it follows from the name."""
    _, branch, user = owner.parts
    return (
        owner.branch if owner.branch is not None and unslug(branch) != owner.branch else None,
        owner.user if owner.user is not None and user != owner.user else None,
    )


def split_identifier(name: str) -> tuple[str, str | None]:
    """Return a name without dbt-jobs-as-code's `[[identifier]]`, and the identifier."""
    found = IDENTIFIER.search(name)
    return (name[: found.start()].rstrip(), found["identifier"]) if found else (name, None)


def _kept(text: str) -> str:
    quoted = quote(text, safe="/@._-")
    return quoted if len(quoted) <= _MAX_ORIGINAL else "~" + hashlib.sha256(text.encode()).hexdigest()[:12]


def _digest(text: str) -> str:
    return b32encode(hashlib.sha256(text.encode()).digest())[:6].decode().lower()


def _check(body: str, account_id: int, project_id: int, name: str) -> str:
    return hashlib.sha256(f"{account_id}/{project_id}/{name}/{body}".encode()).hexdigest()[:8]
