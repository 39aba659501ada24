"""The marts of the github domain, number by number against what git says of the same repository."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pytest

from flows.engine.context.command import DbtCommand
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.run import run_dbt
from flows.loaders.git.load import ingest_git
from infrastructure.profiles import Profile
from tests.support.generated_repository import GeneratedRepository, eventful_repository

Read = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> GeneratedRepository:
    return eventful_repository(tmp_path_factory.mktemp("git") / "project")


@pytest.fixture(scope="module")
def read(repository: GeneratedRepository, tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Load the repository, build the domain, and return a function that queries the result."""
    folder = tmp_path_factory.mktemp("marts")
    path = folder / "warehouse.duckdb"
    profile = Profile("dev", "tributary", {"type": "duckdb", "path": str(path), "schema": "dev", "threads": 2}, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIBUTARY_STATE", str(folder / "state"))
        ingest_git(profile, [str(repository.folder)])
        result = run_dbt(DbtCommand("build", selector="github"), RunContext(read_project(), profile))
    assert result.nodes
    assert result.counts()["failed"] == result.counts()["skipped"] == 0

    def read(query: str) -> list[tuple[Any, ...]]:
        with closing(duckdb.connect(str(path), read_only=True)) as connection:
            return connection.execute(query).fetchall()

    return read


def authors(repository: GeneratedRepository) -> dict[str, tuple[tuple[str, str], datetime, int]]:
    """Return author, time and number of parents by hash, as git's log has them with its mailmap."""
    lines = repository.git("log", "--format=%H%x1f%aN%x1f%aE%x1f%at%x1f%P", "--encoding=UTF-8").splitlines()
    found: dict[str, tuple[tuple[str, str], datetime, int]] = {}
    for name, author, email, seconds, parents in (line.split("\x1f") for line in lines):
        moment = datetime.fromtimestamp(int(seconds), UTC).replace(tzinfo=None)
        found[name] = ((author, email), moment, len(parents.split()))
    return found


def test_commits_have_the_lines_that_git_log_shortstat_counts(read: Read, repository: GeneratedRepository) -> None:
    rows = read("select commit_hash, files_changed, insertions, deletions from dev_marts.fct_commits")
    assert {row[0]: row[1:] for row in rows} == repository.changed_lines()
    assert len(rows) == int(repository.git("rev-list", "--count", "HEAD"))
    assert sum(row[2] for row in rows) > 0


def test_commits_have_authors_and_times_of_git_log(read: Read, repository: GeneratedRepository) -> None:
    rows = read("select commit_hash, author_name, author_email, authored_at, parent_count from dev_marts.fct_commits")
    assert {row[0]: (row[1:3], row[3], row[4]) for row in rows} == authors(repository)


def test_contributors_have_the_commits_of_git_shortlog(read: Read, repository: GeneratedRepository) -> None:
    rows = read("select contributor_name, contributor_email, commits from dev_marts.dim_contributors")
    assert {row[:2]: row[2] for row in rows} == repository.shortlog()


def test_the_leaderboard_is_in_the_order_of_git_shortlog(read: Read, repository: GeneratedRepository) -> None:
    rows = read(
        "select contributor_name, commits, leaderboard_rank, insertions, deletions, share_of_commits"
        " from dev_marts.contributor_leaderboard order by leaderboard_rank"
    )
    counts = sorted(repository.shortlog().values(), reverse=True)
    assert [row[1] for row in rows] == counts
    assert [row[2] for row in rows] == [1 + counts.index(count) for count in counts], "equals share a rank"
    lines: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    by_hash = authors(repository)
    for name, (_, insertions, deletions) in repository.changed_lines().items():
        lines[by_hash[name][0][0]][0] += insertions
        lines[by_hash[name][0][0]][1] += deletions
    shown: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        shown[row[0]][0] += row[3]
        shown[row[0]][1] += row[4]
    assert shown == lines
    assert abs(sum(float(row[5]) for row in rows) - 1) < 1e-4


def test_days_have_the_commits_of_git_log_by_day_in_utc(read: Read, repository: GeneratedRepository) -> None:
    by_hash, changed = authors(repository), repository.changed_lines()
    commits: Counter[date] = Counter()
    merges: Counter[date] = Counter()
    people: dict[date, set[tuple[str, str]]] = defaultdict(set)
    lines: dict[date, list[int]] = defaultdict(lambda: [0, 0])
    for name, (author, moment, parents) in by_hash.items():
        day = moment.date()
        commits[day] += 1
        merges[day] += parents > 1
        people[day].add(author)
        lines[day][0] += changed[name][1]
        lines[day][1] += changed[name][2]
    to_date, expected = 0, []
    for day in sorted(commits):
        to_date += commits[day]
        expected.append((day, commits[day], merges[day], len(people[day]), *lines[day], to_date))
    columns = "activity_date, commits, merge_commits, contributors, insertions, deletions, commits_to_date"
    assert read(f"select {columns} from dev_marts.daily_repository_activity order by 1") == expected


def test_the_repository_adds_up(read: Read, repository: GeneratedRepository) -> None:
    people, days = len(repository.shortlog()), authors(repository).values()
    moments = [moment for _, moment, _ in days]
    assert read(
        "select head_hash, commits, contributors, first_authored_at, last_authored_at from dev_marts.dim_repositories"
    ) == [(repository.head, len(moments), people, min(moments), max(moments))]
    weeks = read("select sum(commits), sum(insertions) from dev_metrics.weekly_repository_activity")
    assert weeks == [(len(moments), sum(lines[1] for lines in repository.changed_lines().values()))]
