"""What `python -m flows run` decides around the pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import Project
from flows.engine.context.reporting import reporting_to
from flows.engine.ledger.failures import nothing_matched
from flows.loaders.sample_data import count_sample_rows, write_sample_data
from flows.pipelines.local_run import SAMPLE_ROWS, Request, load_data, unread_profile, wants_data
from infrastructure.profiles import Profile
from tests.support.notes import Notes

REQUEST = Request("dev")


@pytest.mark.parametrize(
    ("request_", "warehouse", "expected"),
    [
        (REQUEST, "duckdb", True),
        (REQUEST, "postgres", False),
        (replace(REQUEST, project_dir="elsewhere"), "duckdb", False),
        (replace(REQUEST, options=RunOptions(resume=True)), "duckdb", False),
        (replace(REQUEST, with_data=False), "duckdb", False),
        (replace(REQUEST, with_data=True), "postgres", True),
    ],
)
def test_data_is_loaded_on_duckdb_or_as_asked(request_: Request, warehouse: str, expected: bool) -> None:
    assert wants_data(request_, warehouse) is expected


def test_a_profile_of_the_users_own_that_is_not_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    theirs = Project(tmp_path, "shop", "shop")
    assert unread_profile(theirs, "dev", {}) == ""
    (tmp_path / "profiles.yml").write_text("other: {}\n")
    assert unread_profile(theirs, "dev", {}) == ""
    (tmp_path / "home" / ".dbt").mkdir(parents=True)
    (tmp_path / "home" / ".dbt" / "profiles.yml").write_text("shop: {outputs: {dev: {type: duckdb}}}\n")

    said = unread_profile(theirs, "dev", {})

    assert said.startswith(
        f"Profile shop in {tmp_path}/home/.dbt/profiles.yml is not read: target dev is that of infra"
    )
    assert "To use yours: uv run tributary init " in said
    assert unread_profile(Project(tmp_path, "shop", "tributary"), "dev", {}) == "", "it is what the targets are for"


def test_sample_data_of_another_size_is_kept(tmp_path: Path) -> None:
    profile = Profile("dev", "tributary", {"type": "duckdb", "path": str(tmp_path / "dev.duckdb"), "schema": "a"}, {})
    notes = Notes()
    with reporting_to(notes):
        load_data(profile)
        assert abs(count_sample_rows(profile) - SAMPLE_ROWS) < SAMPLE_ROWS // 10
        write_sample_data(profile, rows=1000, seed=7)
        kept = count_sample_rows(profile)
        load_data(profile)
    assert count_sample_rows(profile) == kept
    assert notes.said[-1] == f"Kept the {kept:,} rows of sample data; `sample-data` replaces them."


def test_a_slip_of_the_pen_is_answered_with_the_name_that_was_meant() -> None:
    names = ("dim_musician", "fct_commits")
    assert "Did you mean dim_musician?" in str(nothing_matched(DbtCommand("build", "+dim_musicain"), "dev", names))
    assert "Did you mean" not in str(nothing_matched(DbtCommand("build", "something_else"), "dev", names))


@pytest.mark.parametrize("missing", ["repository", "git"])
def test_without_a_repository_or_git_the_first_run_has_sample_commits(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "repository":
        monkeypatch.setattr("flows.pipelines.local_run.ROOT", tmp_path)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    profile = Profile("dev", "tributary", {"type": "duckdb", "path": str(tmp_path / "dev.duckdb"), "schema": "a"}, {})
    notes = Notes()
    with reporting_to(notes):
        load_data(profile)
        load_data(profile)
    with duckdb.connect(str(tmp_path / "dev.duckdb"), read_only=True) as warehouse:
        counted = warehouse.sql(
            "select count(*), count(distinct hash), (select sum(commit_count) from raw.github_contributors),"
            " (select commit_count from raw.github_repositories) from raw.github_commits"
        ).fetchall()
    commits = counted[0][0]
    assert commits > 100
    assert counted == [(commits,) * 4]
    expected = "is not in a git repository" if missing == "repository" else "is not installed or not on the PATH"
    (said,) = {note for note in notes.said if note.startswith("No commits")}
    assert said.startswith(f"No commits of this repository were loaded but {commits:,} sample commits: ")
    assert expected in said
