"""Repositories behind a URL are fetched once and kept up to date, and their credentials stay secret."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest

from flows.loaders.git.load import IngestResult, ingest_git
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.git.process import git_environment
from infrastructure.git.repository import cache_folder, parse_location
from tests.support.generated_repository import GeneratedRepository
from tests.support.raw_data import RawData
from tests.support.served import served

pytestmark = pytest.mark.usefixtures("settled_git")

USER, PASSWORD = "reader-7f3a", "pa/ss w%rd:9c1e"
QUOTED = "pa%2Fss%20w%25rd%3A9c1e"
SECRETS = (PASSWORD, QUOTED, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(), USER)


class GuardedFiles(SimpleHTTPRequestHandler):
    """Serve files to one user, and look at the command lines of all processes while doing so."""

    command_lines: tuple[str, ...] = ()

    def do_GET(self) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                GuardedFiles.command_lines += (path.read_bytes().decode(errors="replace"),)
            except OSError:
                continue
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        if base64.b64decode(given).decode() == f"{USER}:{PASSWORD}":
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def origin(tmp_path: Path) -> GeneratedRepository:
    """Return a repository to fetch from, with a mailmap."""
    repository = GeneratedRepository.new(tmp_path / "served" / "origin")
    repository.write(".mailmap", "Countess Example <countess@example.org> <ada@example.org>\n")
    repository.commit("First")
    repository.write("x.txt", "x\n")
    repository.commit("Second")
    return repository


@pytest.fixture
def guarded_host(origin: GeneratedRepository) -> Iterator[str]:
    """Serve the repository over http to somebody who knows the password; yield host and port."""
    folder = origin.folder.parent
    origin.git("clone", "--quiet", "--bare", ".", str(folder / "origin.git"))
    GeneratedRepository(folder / "origin.git").git("update-server-info")
    GuardedFiles.command_lines = ()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(GuardedFiles, directory=str(folder)))
    with served(server):
        yield f"127.0.0.1:{server.server_port}"


def load(raw: RawData, url: str, report: Callable[[str], None] | None = None) -> IngestResult:
    return ingest_git(raw.profile, [url], raw.raw_schema, report)


def test_a_url_is_fetched_whole_and_then_kept_up_to_date(duckdb_raw: RawData, origin: GeneratedRepository) -> None:
    url = origin.folder.as_uri()
    said: list[str] = []
    first = load(duckdb_raw, url, said.append)
    assert said[0].startswith(f"Fetching {url} into {cache_folder()}")
    assert (first.added, first.repositories[0].name) == (2, "origin")
    assert duckdb_raw.rows("github_repositories", "url, default_branch") == [(url, "main")]
    assert duckdb_raw.rows("github_contributors", "name, commit_count") == [("Countess Example", 2)]
    origin.git("commit", "--quiet", "--amend", "-m", "Other")
    origin.git("branch", "--quiet", "-m", "main", "trunk")
    origin.commit("Third")
    second = load(duckdb_raw, url + "/")
    assert (second.added, second.repositories[0].removed, second.commit_count) == (2, 1, 3)
    assert duckdb_raw.rows("github_repositories", "head_hash, default_branch") == [(origin.head, "trunk")]
    assert [commit for (commit,) in duckdb_raw.rows("github_commits", "hash")] == sorted(origin.hashes())


def test_settings_of_the_user_do_not_stop_a_fetched_repository_from_being_read(
    duckdb_raw: RawData, origin: GeneratedRepository, tmp_path: Path
) -> None:
    (tmp_path / "gitconfig").write_text('[safe]\nbareRepository = explicit\n[protocol "file"]\nallow = never\n')
    assert load(duckdb_raw, origin.folder.as_uri()).commit_count == 2


def test_a_user_without_a_home_keeps_fetched_repositories_among_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tributary" / "repositories"
    monkeypatch.setattr(Path, "home", Mock(spec=Path.home, side_effect=RuntimeError("no home")))
    assert cache_folder() == Path(tempfile.gettempdir()) / "tributary" / "repositories"


def test_what_is_fetched_does_not_need_what_was_fetched_before(
    duckdb_raw: RawData, origin: GeneratedRepository
) -> None:
    load(duckdb_raw, origin.folder.as_uri())
    shutil.rmtree(cache_folder())
    origin.commit("Third")
    assert load(duckdb_raw, origin.folder.as_uri()).added == 1


def test_an_empty_and_a_shallow_remote_are_told_apart(
    duckdb_raw: RawData, origin: GeneratedRepository, tmp_path: Path
) -> None:
    empty = GeneratedRepository.new(tmp_path / "empty.git", "--bare")
    result = load(duckdb_raw, empty.folder.as_uri())
    assert (result.commit_count, result.repositories[0].name) == (0, "empty")
    origin.git("clone", "--quiet", "--bare", "--depth=1", origin.folder.as_uri(), str(tmp_path / "shallow"))
    result = load(duckdb_raw, (tmp_path / "shallow").as_uri())
    assert (result.commit_count, result.repositories[0].is_shallow) == (1, True)


def test_a_remote_whose_head_names_no_branch_is_not_taken_for_empty(
    duckdb_raw: RawData, origin: GeneratedRepository
) -> None:
    load(duckdb_raw, origin.folder.as_uri())
    origin.git("symbolic-ref", "HEAD", "refs/heads/gone")
    with pytest.raises(ConfigError, match=r"its HEAD names none of them.*git symbolic-ref HEAD"):
        load(duckdb_raw, origin.folder.as_uri())
    assert duckdb_raw.count("github_commits") == 2


def test_credentials_of_a_url_reach_the_server_and_nothing_else(
    duckdb_raw: RawData, guarded_host: str, tmp_path: Path
) -> None:
    said: list[str] = []
    result = load(duckdb_raw, f"http://{USER}:{QUOTED}@{guarded_host}/origin.git", said.append)
    assert result.commit_count == 2
    assert duckdb_raw.rows("github_repositories", "url") == [(f"http://{guarded_host}/origin.git",)]
    assert GuardedFiles.command_lines
    places = {
        "the report": "\n".join(said),
        "the result": repr(result),
        "a command line": "\n".join(GuardedFiles.command_lines),
        **{str(path): path.read_bytes().decode("latin-1") for path in cache_folder().rglob("*") if path.is_file()},
        "the warehouse": Path(duckdb_raw.profile.output["path"]).read_bytes().decode("latin-1"),
    }
    assert {(where, secret) for where, text in places.items() for secret in SECRETS if secret in text} == set()


@pytest.mark.parametrize("userinfo", ["", f"{USER}:wr0ng-pass@", "wr0ng-t0ken@"])
def test_missing_or_wrong_credentials_are_a_configuration_error_without_them(
    duckdb_raw: RawData, guarded_host: str, userinfo: str
) -> None:
    with pytest.raises(ConfigError, match="asks for credentials, and those given are missing or wrong") as caught:
        load(duckdb_raw, f"http://{userinfo}{guarded_host}/origin.git")
    chain = f"{caught.value} {caught.value.__cause__!r}"
    assert not [secret for secret in (USER, "wr0ng") if secret in chain]


def test_a_repository_that_is_not_there_and_a_server_that_is_not(
    duckdb_raw: RawData, guarded_host: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="There is no git repository at http"):
        load(duckdb_raw, f"http://{USER}:{QUOTED}@{guarded_host}/nowhere.git")
    with pytest.raises(ConfigError, match="There is no git repository at file"):
        load(duckdb_raw, (tmp_path / "nowhere").as_uri())
    with pytest.raises(UpstreamUnavailable, match=r"http://127.0.0.1:1/x.git does not answer"):
        load(duckdb_raw, "http://127.0.0.1:1/x.git")


def test_a_cache_folder_that_cannot_be_written_is_explained(
    duckdb_raw: RawData, origin: GeneratedRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    with pytest.raises(ConfigError, match="or set XDG_CACHE_HOME to another folder"):
        load(duckdb_raw, origin.folder.as_uri())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://u:p@Example.org:8443/team/x.git", "https://example.org:8443/team/x.git"),
        ("https://t0ken@example.org/@scope/x", "https://example.org/@scope/x"),
        ("ssh://git:p@example.org/x", "ssh://git@example.org/x"),
        ("http://u:p@[::1]:80/x", "http://[::1]:80/x"),
        ("git@example.org:team/x.git", "git@example.org:team/x.git"),
    ],
)
def test_an_address_keeps_what_leads_to_the_repository_and_no_secret(text: str, address: str) -> None:
    location = parse_location(text)
    assert (location.address, location.is_url) == (address, True)
    assert "p'" not in repr(location)
    assert "t0ken" not in repr(location)


@pytest.mark.parametrize("text", [".", "../x", "/srv/x.git", "~/x", "C:\\x", "folder/a:b", "./a:b"])
def test_a_path_is_not_taken_for_an_address(text: str) -> None:
    assert not parse_location(text).is_url


def test_the_network_is_open_to_git_only_while_it_fetches() -> None:
    location = parse_location("https://u:p@example.org/x")
    environ = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "a.b", "GIT_CONFIG_VALUE_0": "c", "GIT_DIR": "/x"}
    closed, opened = git_environment(environ), git_environment(environ, location)
    assert closed["GIT_ALLOW_PROTOCOL"] == "none"
    assert opened["GIT_ALLOW_PROTOCOL"] == "http:https:ssh:file"
    assert "GIT_DIR" not in closed | opened
    assert "TRIBUTARY_GIT_PASSWORD" not in closed
    settings = [(opened[f"GIT_CONFIG_KEY_{n}"], opened[f"GIT_CONFIG_VALUE_{n}"][:3]) for n in range(3)]
    helper = "credential.https://example.org.helper"
    assert settings == [("a.b", "c"), (helper, ""), (helper, "!f(")]
    assert opened["GIT_CONFIG_COUNT"] == "3"
