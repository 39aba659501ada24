"""A project's repository, fetched without its history into a folder for each commit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.git.checkout import SignIn, check_out
from infrastructure.server.git_credentials import sign_in_of
from tests.support.git_server import git_server


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
        check_out(str(origin), sign_in=SignIn("not-to-be-seen"))


def test_a_server_that_has_no_time_for_a_moment_is_asked_again(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.git.checkout._PAUSE_SECONDS", 0)
    with git_server(origin.parent) as server:
        address = f"{server.address}/{origin.name}"
        server.refusals = 2
        assert _name(check_out(address).folder) == "name: two\n"

        server.refusals, server.asked = 99, 0
        found = check_out(address)
        assert found.note.startswith(f"{address.removesuffix('.git')}") and "the commit of the last time" in found.note
        assert server.asked == 3, "it is asked three times in all"


def test_a_sign_in_reaches_the_server_and_no_file(origin: Path, tmp_path: Path) -> None:
    with git_server(origin.parent, sign_in="oauth2:geheim-4711") as server:
        address = f"{server.address}/{origin.name}"
        found = check_out(address, "v1", SignIn("geheim-4711", "oauth2"))
        server.asked = 0
        with pytest.raises(ConfigError, match="asks for credentials, and those given are missing or wrong") as refused:
            check_out(address, sign_in=SignIn("falsch-0815"))

    assert _name(found.folder) == "name: one\n"
    assert "falsch" not in str(refused.value)
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path for path in kept if b"geheim-4711" in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("data", "host", "expected"),
    [
        ({"value": "t"}, "github.com", ("x-access-token", "t")),
        ({"token": "t"}, "github.com", ("x-access-token", "t")),
        ({"token": "t"}, "gitlab.acme.com", ("oauth2", "t")),
        ({"token": "deploy:t"}, "gitlab.com", ("deploy", "t")),
        ({"token": "t"}, "bitbucket.org", ("x-token-auth", "t")),
        ({"username": "u", "password": "p"}, "bitbucket.org", ("u", "p")),
        ({"username": "u"}, "github.com", None),
    ],
)
def test_a_block_signs_in_as_with_prefects_own_git_clone(
    data: dict[str, str], host: str, expected: tuple[str, str] | None
) -> None:
    found = sign_in_of(data, f"https://{host}/acme/finance.git")

    assert (found and (found.username, found.token)) == expected
