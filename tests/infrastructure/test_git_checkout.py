"""A project's repository, fetched without its history into a folder for each commit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.git.checkout import check_out


def _git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository with a commit that has the tag v1, and a later one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "shop.git"
    folder.mkdir()
    _git(folder, "init", "-q", "-b", "trunk")
    for text in ("one", "two"):
        (folder / "dbt_project.yml").write_text(f"name: {text}\n")
        _git(folder, "add", "-A")
        _git(folder, "commit", "-qm", text)
        if text == "one":
            _git(folder, "tag", "v1")
    return folder


def _name(folder: Path) -> str:
    return (folder / "dbt_project.yml").read_text()


def test_a_branch_is_asked_for_anew_and_a_run_that_goes_on_keeps_its_files(origin: Path) -> None:
    first = check_out(str(origin))
    (origin / "dbt_project.yml").write_text("name: three\n")
    _git(origin, "commit", "-qam", "three")
    second = check_out(str(origin), "trunk")

    assert (_name(first.folder), _name(second.folder)) == ("name: two\n", "name: three\n")
    assert second.commit == _git(origin, "rev-parse", "HEAD")
    assert check_out(str(origin), "trunk") == second
    assert _git(first.folder, "config", "remote.origin.url") == origin.as_uri(), "state belongs to the repository"


def test_a_tag_and_a_whole_commit_are_found_without_history(origin: Path) -> None:
    commit = _git(origin, "rev-parse", "v1^{commit}")

    assert _name(check_out(str(origin), "v1").folder) == "name: one\n"
    found = check_out(str(origin), commit)
    assert (found.commit, _name(found.folder)) == (commit, "name: one\n")
    assert _git(found.folder, "rev-list", "--count", "HEAD") == "1"


def test_a_server_that_is_away_is_no_failure_where_the_commit_is_there(origin: Path) -> None:
    there = check_out(str(origin), "v1")
    pinned = check_out(str(origin), there.commit)
    origin.rename(origin.with_name("gone"))

    assert check_out(str(origin), there.commit) == pinned, "a commit does not change: nothing is asked"
    with pytest.raises((ConfigError, UpstreamUnavailable), match=r"There is no git repository|does not answer"):
        check_out(str(origin), "trunk")


def test_a_ref_that_is_not_there_is_named(origin: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no branch, tag or commit 'v2'.*To see what there is: git ls-remote"):
        check_out(str(origin), "v2")


def test_a_folder_that_somebody_deleted_is_made_again(origin: Path) -> None:
    found = check_out(str(origin), "v1")
    shutil.rmtree(found.folder)
    assert _name(check_out(str(origin), "v1").folder) == "name: one\n"


def test_a_token_is_for_https_alone(origin: Path) -> None:
    with pytest.raises(ConfigError, match="takes no token"):
        check_out(str(origin), token="not-to-be-seen")
