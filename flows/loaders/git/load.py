"""Load repositories, contributors and commits of git repositories into the raw schema."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flows.loaders.git.log import EPOCH, Commit, Identity, read_commits, read_identities
from flows.warehouses.door import open_warehouse
from flows.warehouses.raw_tables import RawTable
from flows.warehouses.warehouse import Warehouse
from infrastructure.errors import ConfigError
from infrastructure.git.process import Location
from infrastructure.git.repository import Repository, open_repository, parse_location
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

REPOSITORIES = RawTable(
    "github_repositories",
    (
        ("repository_id", "varchar"),
        ("name", "varchar"),
        ("url", "varchar"),
        ("default_branch", "varchar"),
        ("head_hash", "varchar"),
        ("is_shallow", "boolean"),
        ("commit_count", "bigint"),
        ("ingested_at", "timestamp"),
    ),
)
CONTRIBUTORS = RawTable(
    "github_contributors",
    (
        ("repository_id", "varchar"),
        ("contributor_id", "varchar"),
        ("name", "varchar"),
        ("email", "varchar"),
        ("commit_count", "bigint"),
        ("first_authored_at", "timestamp"),
        ("last_authored_at", "timestamp"),
        ("ingested_at", "timestamp"),
    ),
)
COMMITS = RawTable(
    "github_commits",
    (
        ("repository_id", "varchar"),
        ("hash", "varchar"),
        ("parent_count", "integer"),
        ("author_name", "varchar"),
        ("author_email", "varchar"),
        ("authored_at", "timestamp"),
        ("committer_name", "varchar"),
        ("committer_email", "varchar"),
        ("committed_at", "timestamp"),
        ("message", "varchar"),
        ("files_changed", "integer"),
        ("insertions", "bigint"),
        ("deletions", "bigint"),
        ("ingested_at", "timestamp"),
    ),
)
TABLES = (REPOSITORIES, CONTRIBUTORS, COMMITS)

REPORT_EVERY = 25_000
DELETE_BATCH = 10_000

Report = Callable[[str], None]


@dataclass(frozen=True)
class RepositoryResult:
    """What a load did to one repository.

    Attributes:
        commit_count: commits there are now; `added` and `removed` are those this load wrote and deleted.
        notes: sentences a person should read, such as how to complete a shallow clone.
    """

    repository_id: str
    name: str
    url: str
    head_hash: str | None
    commit_count: int
    added: int
    removed: int
    contributor_count: int
    is_shallow: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class IngestResult:
    """What a load did, by repository in the order in which they were given."""

    repositories: tuple[RepositoryResult, ...]

    @property
    def commit_count(self) -> int:
        """Return how many commits of these repositories there are now."""
        return sum(repository.commit_count for repository in self.repositories)

    @property
    def added(self) -> int:
        """Return how many commits were written."""
        return sum(repository.added for repository in self.repositories)


def ingest_git(
    profile: Profile,
    repositories: Sequence[str],
    raw_schema: str = "raw",
    report: Report | None = None,
) -> IngestResult:
    """Bring the raw tables of source `github` up to date with git repositories.

    A repository is a path (also inside it, or of a worktree) or a URL (http, https, ssh, file, host:path).
    Those behind a URL are fetched whole, without tags, into `$XDG_CACHE_HOME` or `~/.cache`, folder
    `tributary/repositories`; a later load fetches what is new. What HEAD reaches is loaded. Only commits
    that are not there yet are read; those a rewritten history has dropped are deleted, and those a changed
    .mailmap gives other names are read again. One transaction per repository; one that is given twice is
    loaded once, as it was given last.

    A date that git cannot read, or beyond the year 9999, is stored as 1970-01-01, as `git log` shows it.

    Args:
        report: called with a sentence about each step.

    Raises:
        ConfigError: an argument is not a repository, one cannot be read, or the warehouse refuses.
        UpstreamUnavailable: a server does not answer, or the DuckDB file is in use.
    """
    say = report or _silent
    opened = {found.repository_id: found for found in [open_repository(at, say) for at in _locations(repositories)]}
    with open_warehouse(profile, raw_schema) as warehouse:
        return IngestResult(tuple(_load(warehouse, repository, say) for repository in opened.values()))


def _locations(repositories: Sequence[str]) -> list[Location]:
    if not repositories:
        raise ConfigError("No repository was given: name at least one, as a path or a URL.")
    locations: list[Location] = []
    problems: list[str] = []
    for text in repositories:
        try:
            locations.append(parse_location(text))
        except ConfigError as exc:
            problems.append(str(exc))
    if problems:
        raise ConfigError("\n".join(problems))
    return locations


def _load(warehouse: Warehouse, repository: Repository, say: Report) -> RepositoryResult:
    at = {"repository_id": repository.repository_id}
    now = datetime.now(UTC).replace(tzinfo=None)
    bad_dates = 0

    def rows(commits: Iterable[Commit]) -> Iterator[tuple[object, ...]]:
        nonlocal bad_dates
        for number, commit in enumerate(commits, start=1):
            bad_dates += commit.authored_at is None or commit.committed_at is None
            if number % REPORT_EVERY == 0:
                say(f"Read {count_of(number, 'commit')} of {repository.name}.")
            yield (
                repository.repository_id,
                commit.hash,
                commit.parent_count,
                commit.author_name,
                commit.author_email,
                commit.authored_at or EPOCH,
                commit.committer_name,
                commit.committer_email,
                commit.committed_at or EPOCH,
                commit.message,
                commit.files_changed,
                commit.insertions,
                commit.deletions,
                now,
            )

    with warehouse.loading():
        warehouse.prepare(TABLES)
        stored = _stored_identities(warehouse, repository)
        missing, outdated = _differences(repository, stored, _is_comparable(warehouse, repository))
        removed = _delete(warehouse, repository, outdated, is_all=len(outdated) == len(stored))
        added = warehouse.append(COMMITS, rows(read_commits(repository, missing)))
        contributors = _contributors(warehouse, repository, now)
        warehouse.delete(CONTRIBUTORS, at)
        warehouse.append(CONTRIBUTORS, contributors)
        commit_count = warehouse.count(COMMITS, at)
        warehouse.delete(REPOSITORIES, at)
        warehouse.append(REPOSITORIES, [_repository_row(repository, commit_count, now)])
    result = RepositoryResult(
        repository_id=repository.repository_id,
        name=repository.name,
        url=repository.url,
        head_hash=repository.head_hash,
        commit_count=commit_count,
        added=added,
        removed=removed,
        contributor_count=len(contributors),
        is_shallow=repository.is_shallow,
        notes=tuple(_notes(repository, bad_dates)),
    )
    say(
        f"{repository.name}: {count_of(commit_count, 'commit')} of {len(contributors):,} contributors, "
        f"{added:,} read and {removed:,} removed by this load."
    )
    for note in result.notes:
        say(note)
    return result


def _stored_identities(warehouse: Warehouse, repository: Repository) -> dict[str, Identity | None]:
    """Return the stored author and committer of each hash; None for a hash that is stored twice, so that it differs."""
    columns = ("hash", "author_name", "author_email", "committer_name", "committer_email")
    stored: dict[str, Identity | None] = {}
    known: dict[Identity, Identity] = {}
    for commit_hash, *names in warehouse.select(COMMITS, columns, {"repository_id": repository.repository_id}):
        identity: Identity = (names[0], names[1], names[2], names[3])
        # One tuple per pair of people, not per commit: a million commits share some thousand of them.
        stored[commit_hash] = None if commit_hash in stored else known.setdefault(identity, identity)
    return stored


def _is_comparable(warehouse: Warehouse, repository: Repository) -> bool:
    """Return whether stored commits can be kept; the oldest ones of a shallow clone may change."""
    at = {"repository_id": repository.repository_id}
    was_shallow = [flag for (flag,) in warehouse.select(REPOSITORIES, ("is_shallow",), at)]
    return not repository.is_shallow and not any(was_shallow)


def _differences(
    repository: Repository, stored: dict[str, Identity | None], is_comparable: bool
) -> tuple[list[str] | None, list[str]]:
    """Return the hashes to read (None for all) and those to delete, by comparing git with the warehouse."""
    if not stored or not is_comparable:
        return None, list(stored)
    missing: list[str] = []
    gone = dict(stored)
    for commit_hash, identity in read_identities(repository):
        if gone.get(commit_hash) == identity:
            del gone[commit_hash]
        else:
            missing.append(commit_hash)
    return missing, list(gone)


def _delete(warehouse: Warehouse, repository: Repository, hashes: list[str], is_all: bool) -> int:
    at = {"repository_id": repository.repository_id}
    if is_all:
        return warehouse.delete(COMMITS, at) if hashes else 0
    return sum(
        warehouse.delete(COMMITS, {**at, "hash": hashes[start : start + DELETE_BATCH]})
        for start in range(0, len(hashes), DELETE_BATCH)
    )


def _contributors(warehouse: Warehouse, repository: Repository, now: datetime) -> list[tuple[object, ...]]:
    """Group the commits by author as `git shortlog -sne` does, most commits first."""
    columns = ("author_name", "author_email", "authored_at")
    authored = warehouse.select(COMMITS, columns, {"repository_id": repository.repository_id})
    return group_contributors(repository.repository_id, authored, now)


def group_contributors(
    repository_id: str, authored: Iterable[tuple[str, str, datetime]], now: datetime
) -> list[tuple[object, ...]]:
    """Group the name, address and date of each commit by author, as rows of the raw table, most commits first."""
    seen: dict[tuple[str, str], tuple[int, datetime, datetime]] = {}
    for name, email, authored_at in authored:
        count, first, last = seen.get((name, email), (0, authored_at, authored_at))
        seen[name, email] = (count + 1, min(first, authored_at), max(last, authored_at))
    return [
        (repository_id, contributor_id(name, email), name, email, count, first, last, now)
        for (name, email), (count, first, last) in sorted(seen.items(), key=lambda item: (-item[1][0], item[0]))
    ]


def contributor_id(name: str, email: str) -> str:
    """Return the id of a person, the same in every repository."""
    return hashlib.sha256(f"{name}\n{email}".encode()).hexdigest()[:32]


def _repository_row(repository: Repository, commit_count: int, now: datetime) -> tuple[object, ...]:
    return (
        repository.repository_id,
        repository.name,
        repository.url,
        repository.default_branch,
        repository.head_hash,
        repository.is_shallow,
        commit_count,
        now,
    )


def _notes(repository: Repository, bad_dates: int) -> Iterator[str]:
    if repository.head_hash is None:
        yield f"{repository.name} has no commits yet: only its name is loaded."
    if repository.is_shallow:
        yield (
            f"{repository.name} is a shallow clone: only the commits in it were loaded, and its oldest ones "
            f"count every line as new. To load all: git -C {repository.folder} fetch --unshallow"
        )
    if bad_dates:
        yield (
            f"{count_of(bad_dates, 'commit')} of {repository.name} with a date that cannot be read; "
            "it is stored as 1970-01-01."
        )


def _silent(_: str) -> None:
    """Ignore a message."""
