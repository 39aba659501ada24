"""Commits of git repositories in the raw tables equal what git itself says, on both warehouses."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.loaders.git.load import IngestResult, contributor_id, ingest_git
from infrastructure.errors import ConfigError
from tests.support.generated_repository import GeneratedRepository, eventful_repository
from tests.support.raw_data import RawData

ROOT = Path(__file__).resolve().parents[3]
EPOCH = datetime(1970, 1, 1)


pytestmark = pytest.mark.usefixtures("settled_git")


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> GeneratedRepository:
    """Return a repository that tests only read."""
    return eventful_repository(tmp_path_factory.mktemp("eventful") / "project")


@pytest.fixture
def small(tmp_path: Path) -> GeneratedRepository:
    """Return a repository of three commits that a test may change."""
    repository = GeneratedRepository.new(tmp_path / "small")
    for number in range(3):
        repository.write(f"{number}.txt", "x\n" * (number + 1))
        repository.commit(f"Commit {number}")
    return repository


def load(raw: RawData, *repositories: object, report: Callable[[str], None] | None = None) -> IngestResult:
    return ingest_git(raw.profile, [str(repository) for repository in repositories], raw.raw_schema, report)


def changed_lines(raw: RawData) -> dict[str, tuple[int, int, int]]:
    columns = "hash, files_changed, insertions, deletions"
    return {commit: (f, i, d) for commit, f, i, d in raw.rows("github_commits", columns)}


def shortlog(raw: RawData) -> dict[tuple[str, str], int]:
    found = raw.rows("github_contributors", "name, email, commit_count")
    assert len({(name, email) for name, email, _ in found}) == len(found)
    return {(name, email): count for name, email, count in found}


def assert_equals_git(raw: RawData, repository: GeneratedRepository) -> None:
    assert changed_lines(raw) == repository.changed_lines()
    assert raw.count("github_commits") == len(repository.hashes())
    assert shortlog(raw) == repository.shortlog()
    [(head, count)] = raw.rows("github_repositories", "head_hash, commit_count")
    assert (head, count) == (repository.head, len(repository.hashes()))


# What is loaded


def test_numbers_equal_git_log_and_git_shortlog(raw: RawData, eventful: GeneratedRepository) -> None:
    result = load(raw, eventful.folder)
    assert_equals_git(raw, eventful)
    assert result.commit_count == result.added == len(eventful.hashes()) == 13
    assert result.repositories[0].contributor_count == len(eventful.shortlog())


def test_people_times_and_parents_equal_git_log(raw: RawData, eventful: GeneratedRepository) -> None:
    load(raw, eventful.folder)
    form = "%H\x1f%P\x1f%aN\x1f%aE\x1f%at\x1f%cN\x1f%cE\x1f%ct"
    lines = eventful.git("log", f"--format={form}", "--encoding=UTF-8").splitlines()
    expected = []
    for commit, parents, *author, author_time, committer, committer_email, time in (x.split("\x1f") for x in lines):
        times = [datetime.fromtimestamp(int(value), UTC).replace(tzinfo=None) for value in (author_time, time)]
        expected.append((commit, len(parents.split()), *author, times[0], committer, committer_email, times[1]))
    people = "author_name, author_email, authored_at, committer_name, committer_email, committed_at"
    assert sorted(raw.rows("github_commits", f"hash, parent_count, {people}")) == sorted(expected)
    assert {"René", 'Quote " and tab\there'} <= {row[2] for row in expected}


def test_messages_come_whole_and_in_unicode(raw: RawData, eventful: GeneratedRepository) -> None:
    load(raw, eventful.folder)
    messages = [message for (message,) in raw.rows("github_commits", "message")]
    assert {"Begin\n\nWith a body,\nof two lines.", "café says its header", "", "Merge side"} <= set(messages)


def test_contributors_hold_their_first_and_last_commit(raw: RawData, eventful: GeneratedRepository) -> None:
    load(raw, eventful.folder)
    [(name, identity, first, last)] = raw.rows(
        "github_contributors",
        "name, contributor_id, first_authored_at, last_authored_at",
        "where email = 'bo@example.org'",
    )
    times = [
        datetime.fromtimestamp(int(line), UTC).replace(tzinfo=None)
        for line in eventful.git("log", "--format=%at", "--use-mailmap", "--author=bo@example.org").split()
    ]
    assert (name, identity) == ("Bo Example", contributor_id("Bo Example", "bo@example.org"))
    assert (first, last) == (min(times), max(times))


def test_repository_row_says_where_it_comes_from(raw: RawData, small: GeneratedRepository) -> None:
    small.git("remote", "add", "origin", "https://someone:t0ken@example.org/team/small.git")
    load(raw, small.folder)
    columns = "name, url, default_branch, is_shallow"
    assert raw.rows("github_repositories", columns, "") == [
        ("small", "https://example.org/team/small.git", "main", False)
    ]
    small.git("checkout", "--quiet", "--detach")
    load(raw, small.folder)
    assert raw.rows("github_repositories", "default_branch") == [("HEAD",)]


def test_settings_of_the_user_do_not_change_what_is_read(
    raw: RawData, eventful: GeneratedRepository, tmp_path: Path
) -> None:
    expected = eventful.changed_lines(), eventful.shortlog()
    (tmp_path / "gitconfig").write_text(
        "[log]\nshowSignature = true\nshowRoot = false\nmailmap = false\ndate = relative\n"
        "[i18n]\nlogOutputEncoding = UTF-16\n[diff]\nrelative = true\nnoprefix = true\n"
        "[format]\npretty = oneline\n[color]\nui = always\n"
    )
    subfolder = eventful.folder / "a folder"
    load(raw, subfolder)
    assert (changed_lines(raw), shortlog(raw)) == expected


def test_variables_of_a_git_hook_do_not_lead_to_another_repository(
    duckdb_raw: RawData,
    small: GeneratedRepository,
    eventful: GeneratedRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GIT_DIR", str(eventful.folder / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(eventful.folder / ".git" / "index"))
    result = load(duckdb_raw, small.folder)
    assert (result.repositories[0].name, result.commit_count) == ("small", 3)


# Loading again


def test_a_second_load_reads_only_what_is_new(raw: RawData, small: GeneratedRepository) -> None:
    load(raw, small.folder)
    before = dict(raw.rows("github_commits", "hash, ingested_at"))
    assert load(raw, small.folder).added == 0
    small.write("new.txt", "x\n")
    new = small.commit("New")
    result = load(raw, small.folder)
    after = dict(raw.rows("github_commits", "hash, ingested_at"))
    assert (result.added, result.repositories[0].removed) == (1, 0)
    assert after.keys() - before.keys() == {new}
    assert all(after[commit] == before[commit] for commit in before)
    assert_equals_git(raw, small)


def test_a_rewritten_history_loses_its_vanished_commits(
    raw: RawData, eventful: GeneratedRepository, tmp_path: Path
) -> None:
    shutil.copytree(eventful.folder, tmp_path / "project")
    repository = GeneratedRepository(tmp_path / "project")
    load(raw, repository.folder)
    repository.git("rebase", "--quiet", "--keep-empty", "--onto", "HEAD~3", "HEAD~2")
    repository.git("commit", "--quiet", "--amend", "--allow-empty", "-m", "Amended")
    result = load(raw, repository.folder)
    assert (result.added, result.repositories[0].removed) == (2, 3)
    assert_equals_git(raw, repository)


def test_a_changed_mailmap_renames_commits_that_are_there(raw: RawData, small: GeneratedRepository) -> None:
    load(raw, small.folder)
    (small.folder / ".mailmap").write_text("Countess Example <countess@example.org> <ada@example.org>\n")
    result = load(raw, small.folder)
    assert (result.added, result.repositories[0].removed) == (3, 3)
    assert shortlog(raw) == small.shortlog() == {("Countess Example", "countess@example.org"): 3}
    assert load(raw, small.folder).added == 0


def test_a_commit_that_is_stored_twice_is_mended(raw: RawData, small: GeneratedRepository) -> None:
    from flows.loaders.git.load import COMMITS
    from flows.warehouses.door import open_warehouse

    load(raw, small.folder)
    with open_warehouse(raw.profile, raw.raw_schema) as warehouse, warehouse.loading():
        warehouse.append(COMMITS, raw_commits := list(warehouse.select(COMMITS, COMMITS.column_names, {}))[:1])
        assert raw_commits
    load(raw, small.folder)
    assert_equals_git(raw, small)


def test_repositories_do_not_touch_each_other(
    raw: RawData, small: GeneratedRepository, eventful: GeneratedRepository
) -> None:
    result = load(raw, small.folder, eventful.folder, small.folder)
    assert [repository.name for repository in result.repositories] == ["small", "project"]
    by_repository = dict(raw.rows("github_commits", "repository_id, count(*)", "group by 1"))
    assert by_repository == {repository.repository_id: repository.commit_count for repository in result.repositories}
    load(raw, small.folder)
    assert raw.count("github_commits") == 16
    ada = raw.rows("github_contributors", "contributor_id", "where email = 'ada@example.org'")
    assert len(ada) == 2
    assert ada[0] == ada[1]


def test_worktrees_subfolders_and_links_are_the_same_repository(
    duckdb_raw: RawData, small: GeneratedRepository, tmp_path: Path
) -> None:
    small.git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "tree"))
    GeneratedRepository(tmp_path / "tree").commit("In the worktree")
    (tmp_path / "link").symlink_to(small.folder)
    (small.folder / "sub").mkdir()
    first = load(duckdb_raw, tmp_path / "tree", small.folder, small.folder / "sub", tmp_path / "link")
    assert [(repository.name, repository.commit_count) for repository in first.repositories] == [("small", 3)]
    second = load(duckdb_raw, tmp_path / "tree")
    assert second.repositories[0].repository_id == first.repositories[0].repository_id
    assert (second.commit_count, second.added) == (4, 1)


def test_a_load_that_is_killed_leaves_the_old_rows_and_the_next_one_is_right(
    raw: RawData, small: GeneratedRepository
) -> None:
    load(raw, small.folder)
    before = raw.rows("github_commits")
    small.git("commit", "--quiet", "--amend", "-m", "Rewritten")
    for number in range(8):
        small.commit(f"More {number}")
    program = (
        "import os, signal, sys\n"
        "import flows.loaders.git.load, flows.warehouses.warehouse\n"
        "from infrastructure.profiles import Profile\n"
        "flows.warehouses.warehouse.Warehouse.batch_rows, flows.loaders.git.load.REPORT_EVERY = 2, 5\n"
        f"profile = Profile('t', 't', {raw.profile.output!r}, {{}})\n"
        "die = lambda text: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"flows.loaders.git.load.ingest_git(profile, [{str(small.folder)!r}], {raw.raw_schema!r}, die)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert raw.rows("github_commits") == before
    assert load(raw, small.folder).added == 9
    assert_equals_git(raw, small)


# Repositories that are not whole


def test_an_empty_repository_loads_its_row_and_says_so(raw: RawData, tmp_path: Path) -> None:
    repository = GeneratedRepository.new(tmp_path / "empty")
    said: list[str] = []
    result = load(raw, repository.folder, report=said.append)
    assert raw.rows("github_repositories", "name, default_branch, head_hash, commit_count") == [
        ("empty", "main", None, 0)
    ]
    assert raw.count("github_commits") == raw.count("github_contributors") == 0
    assert any("has no commits yet" in text for text in said)
    assert result.repositories[0].notes
    repository.commit("First")
    assert load(raw, repository.folder).added == 1


def test_a_shallow_clone_loads_what_there_is_and_then_all(
    raw: RawData, eventful: GeneratedRepository, tmp_path: Path
) -> None:
    eventful.git("clone", "--quiet", "--depth", "3", eventful.folder.as_uri(), str(tmp_path / "shallow"))
    shallow = GeneratedRepository(tmp_path / "shallow")
    result = load(raw, shallow.folder)
    assert_equals_git(raw, shallow)
    assert raw.rows("github_repositories", "is_shallow") == [(True,)]
    assert [note for note in result.repositories[0].notes if "fetch --unshallow" in note]
    command = re.search(r"git -C (\S+) fetch --unshallow", result.repositories[0].notes[0])
    assert command
    shallow.git("-C", command[1], "fetch", "--quiet", "--unshallow")
    load(raw, shallow.folder)
    assert_equals_git(raw, eventful)
    assert raw.rows("github_repositories", "is_shallow") == [(False,)]


def test_a_partial_clone_is_refused_with_the_way_out(
    duckdb_raw: RawData, eventful: GeneratedRepository, tmp_path: Path
) -> None:
    eventful.git("config", "uploadpack.allowFilter", "true")
    eventful.git(
        "clone",
        "--quiet",
        "--bare",
        "--filter=blob:none",
        eventful.folder.as_uri(),
        str(tmp_path / "partial"),
    )
    with pytest.raises(ConfigError, match=r"is a partial clone: .* Give its URL instead"):
        load(duckdb_raw, tmp_path / "partial")


def test_a_damaged_repository_leaves_the_rows_that_were_loaded_before(raw: RawData, small: GeneratedRepository) -> None:
    load(raw, small.folder)
    before = raw.rows("github_commits")
    tree = small.git("rev-parse", "HEAD^{tree}").strip()
    small.commit("One more")
    (small.folder / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    small.write("other.txt", "x\n")
    (small.folder / ".git" / "objects" / small.head[:2] / small.head[2:]).unlink()
    with pytest.raises(ConfigError, match=rf"git cannot read the repository {small.folder} .* fsck"):
        load(raw, small.folder)
    assert raw.rows("github_commits") == before


def test_a_damaged_branch_is_not_taken_for_an_empty_repository(raw: RawData, small: GeneratedRepository) -> None:
    load(raw, small.folder)
    (small.folder / ".git" / "refs" / "heads" / "main").write_text("nonsense")
    with pytest.raises(ConfigError, match="git cannot read the repository"):
        load(raw, small.folder)
    assert raw.count("github_commits") == 3


# Commits that git itself would not write


def test_a_message_cannot_pose_as_another_commit(raw: RawData, small: GeneratedRepository) -> None:
    people = b"author Ada Example <ada@example.org> 1700000000 +0000\ncommitter C <c@example.org> 1700000000 +0000"
    forged = "\0" + "0" * 40 + "\0\0Mallory\0m@example.org\0" + "1\0Mallory\0m@example.org\0" + "1\0forged\0\n9\t9\tx\0"
    odd = small.raw_commit(people, b"before\x1e\x1f\xff" + forged.encode() + b"end\n")
    load(raw, small.folder)
    assert {commit for (commit,) in raw.rows("github_commits", "hash")} == set(small.hashes())
    [(message, files)] = raw.rows("github_commits", "message, files_changed", f"where hash = '{odd}'")
    assert message.startswith("before\x1e\x1f\ufffd")
    assert (files, "\0" in message) == (0, False)
    assert raw.rows("github_contributors", "distinct email") == [("ada@example.org",)]


def test_authors_that_git_cannot_read_are_empty(raw: RawData, small: GeneratedRepository) -> None:
    odd = small.raw_commit(b"author nobody at all\ncommitter  <> 1700000000 +0000", b"x\n")
    load(raw, small.folder)
    columns = "author_name, author_email, committer_name, committer_email, authored_at"
    assert raw.rows("github_commits", columns, f"where hash = '{odd}'") == [("", "", "", "", EPOCH)]


@pytest.mark.parametrize("moment", ["253402300800", "99999999999999999999", "-100", "", "soon"])
def test_a_date_that_cannot_be_is_stored_as_1970_and_counted(
    raw: RawData, small: GeneratedRepository, moment: str
) -> None:
    person = f"Ada Example <ada@example.org> {moment} +0000"
    odd = small.raw_commit(f"author {person}\ncommitter {person}".encode(), b"x\n")
    result = load(raw, small.folder)
    found = raw.rows("github_commits", "authored_at, committed_at", f"where hash = '{odd}'")
    assert found == [(EPOCH, EPOCH)]
    assert [note for note in result.repositories[0].notes if "1 commit of small with a date" in note]
    assert len(raw.rows("github_commits")) == 4


def test_the_last_second_that_python_can_hold_is_kept(raw: RawData, small: GeneratedRepository) -> None:
    person = "Ada Example <ada@example.org> 253402300799 +0000"
    odd = small.raw_commit(f"author {person}\ncommitter {person}".encode(), b"x\n")
    load(raw, small.folder)
    found = raw.rows("github_commits", "authored_at", f"where hash = '{odd}'")
    assert found == [(datetime(9999, 12, 31, 23, 59, 59),)]


def test_nothing_that_a_repository_configures_is_run(
    duckdb_raw: RawData, small: GeneratedRepository, tmp_path: Path
) -> None:
    marker = tmp_path / "it ran"
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch '{marker}'\ncat\n")
    trap.chmod(0o755)
    small.write(".gitattributes", "*.txt diff=trap filter=trap\n")
    small.commit("Attributes")
    small.raw_commit(
        b"author A <a@example.org> 1700000000 +0000\ncommitter A <a@example.org> 1700000000 +0000\n"
        b"gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----",
        b"signed\n",
    )
    for name in (
        "core.fsmonitor", "core.pager", "core.sshCommand", "core.editor", "core.askPass", "diff.external",
        "diff.trap.command", "diff.trap.textconv", "filter.trap.clean", "filter.trap.smudge", "gpg.program",
        "credential.helper", "core.alternateRefsCommand",
    ):  # fmt: skip
        small.git("config", name, str(trap))
    small.git("config", "log.showSignature", "true")
    small.git("config", "alias.log", f"!{trap}")
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"):
        shutil.copy(trap, small.folder / ".git" / "hooks" / hook)
    result = load(duckdb_raw, small.folder, small.folder.as_uri())
    assert [repository.commit_count for repository in result.repositories] == [5, 5]
    assert not marker.exists()
    small.git("log", "--show-signature", "-1")
    assert marker.exists(), "the traps must work, or this test shows nothing"


# Arguments that are refused


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--upload-pack=touch x", "is not a repository: give a path"),
        ("", "is not a repository: give a path"),
        ("a\nb", "is not a repository: give a path"),
        ("ext::sh -c touch% x", "Repositories behind ext:: are refused"),
        ("fd::17", "Repositories behind fd:: are refused"),
        ("ftp://example.org/x", "cannot be fetched over ftp. Use a path, or a URL that begins with http"),
        ("ssh://-oProxyCommand=touch/x", "the name of a host is missing"),
        ("https://u:t0ken\n@example.org/x", "is not a repository: give a path"),
        ("https:/u:t0ken@example.org/x", "a URL begins with https://"),
        ("u:t0ken@example.org:x", "host:path takes no password"),
        ("-oProxyCommand=touch:x", "is not a repository: give a path"),
        ("git@-oProxyCommand=touch:x", "a host name does not begin with a dash"),
        ("https:///nohost", "the name of a host is missing"),
        ("https://example.org/x?token=t0ken", "has a [?] or # part"),
        (
            "https://someone:t0/ken@example.org/x",
            "Write special characters of a user name or password as %XX",
        ),
        ("no/such/folder", "There is no folder no/such/folder"),
    ],
)
def test_an_argument_that_is_no_repository_is_refused(duckdb_raw: RawData, argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(duckdb_raw, argument)
    assert "t0" not in str(caught.value)
    assert not Path(duckdb_raw.profile.output["path"]).exists()


def test_all_bad_arguments_are_named_at_once(duckdb_raw: RawData) -> None:
    with pytest.raises(ConfigError, match=r"(?s)'-x' is not a repository.*over ftp"):
        load(duckdb_raw, "-x", "ftp://example.org/x")
    with pytest.raises(ConfigError, match="No repository was given"):
        load(duckdb_raw)


def test_a_folder_outside_any_repository_is_refused(duckdb_raw: RawData, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(ConfigError, match="plain is not in a git repository: give the path of one, or its URL"):
        load(duckdb_raw, tmp_path / "plain")


def test_a_missing_git_says_how_to_install_it(
    duckdb_raw: RawData, small: GeneratedRepository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing here"))
    with pytest.raises(ConfigError, match=r"git, which reads repositories, is not installed.*apt-get install git"):
        load(duckdb_raw, small.folder)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give a repository away")
def test_a_repository_of_another_user_is_refused_with_git_s_way_out(
    duckdb_raw: RawData, small: GeneratedRepository, tmp_path: Path
) -> None:
    for path in (small.folder, *small.folder.rglob("*")):
        os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to another user") as caught:
        load(duckdb_raw, small.folder)
    command = re.search(r"git (config --global --add safe\.directory) (\S+)", str(caught.value))
    assert command
    subprocess.run(["git", *command[1].split(), command[2]], check=True)
    assert load(duckdb_raw, small.folder).commit_count == 3
