"""Have the files of a git repository at a branch, tag or commit in a folder of their own."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.git.process import GitFailed, Location, run_git
from infrastructure.git.repository import cache_folder, fetch_error, name_of, parse_location, repository_id
from infrastructure.private_files import private_folder

_WAIT_SECONDS = 600
_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0
# Folders of earlier commits, which a run that is going on may still read.
_KEPT = 10
_NO_REF = re.compile(r"couldn't find remote ref|not our ref|no such ref", re.IGNORECASE)
_WHOLE_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class SignIn:
    """What an https address is signed in to with.

    Attributes:
        username: most hosts of git take any beside a token; the default is GitHub's own.
    """

    token: str = field(repr=False)
    username: str = "x-access-token"


@dataclass(frozen=True)
class Checkout:
    """The files of one commit.

    Attributes:
        folder: the root of the repository's files; not to be edited.
        commit: its full hash.
        note: what a person should know; "" for nothing.
    """

    folder: Path
    commit: str
    note: str = ""


def check_out(address: str, ref: str | None = None, sign_in: SignIn | None = None) -> Checkout:
    """Fetch a branch, tag or commit without its history, and return the folder of its files.

    Each commit has a folder of its own, so that a run keeps its files while a later one takes newer files. A commit
    that is named by its full hash is fetched once. Where the server does not answer, the commit of the last time is
    used, and the note says so.

    Args:
        address: as `parse_location` takes it; a path may be relative to the current folder.
        ref: None for the repository's main branch.
        sign_in: for an https address; it is in no file, URL or command line.

    Raises:
        ConfigError: git is missing, or there is no such repository, branch, tag or commit.
        UpstreamUnavailable: the server does not answer, and nothing was fetched before.
    """
    # It tries out the file system when it is imported.
    import filelock

    if shutil.which("git") is None:
        raise ConfigError("git, which fetches projects, is not installed or not on the PATH. Install it.")
    location = _signed_in(_as_url(parse_location(address)), sign_in)
    clean = location.address.rstrip("/").removesuffix(".git")
    home = cache_folder().parent / "projects" / f"{name_of(clean)}-{repository_id(clean)}"
    repository = home / "repository.git"
    try:
        private_folder(home)
        run_git(["init", "--quiet", "--bare", "--template=", "--", str(repository)])
        # It tells later runs whose state they go on with.
        run_git(["config", "remote.origin.url", location.address], repository)
    except (OSError, GitFailed) as exc:
        raise ConfigError(
            f"The folder {home}, where projects are fetched to, can't be written. Give this user write access, or set "
            "XDG_CACHE_HOME to another folder."
        ) from exc
    with filelock.FileLock(home / ".lock", timeout=_WAIT_SECONDS):
        commit, note = _fetched(location, ref, repository)
        folder = home / commit[:12]
        if not (folder / ".git").exists():
            shutil.rmtree(folder, ignore_errors=True)
            run_git(["worktree", "prune"], repository)
            run_git(["worktree", "add", "--quiet", "--force", "--detach", str(folder), commit], repository)
        os.utime(folder)
        _remove_oldest(home, repository)
    return Checkout(folder, commit, note)


def _as_url(location: Location) -> Location:
    if location.is_url:
        return location
    return Location(Path(location.address).expanduser().absolute().as_uri(), is_url=True)


def _signed_in(location: Location, sign_in: SignIn | None) -> Location:
    if not sign_in:
        return location
    if not location.address.startswith(("https://", "http://")):
        raise ConfigError(
            f"{location.address} takes no token: only an https address does. Leave `token_env` or `credentials_block` "
            "out."
        )
    return replace(location, username=sign_in.username, password=sign_in.token)


def _fetched(location: Location, ref: str | None, repository: Path) -> tuple[str, str]:
    """Return the commit of a ref, and what is to be said of it."""
    kept = f"refs/tributary/{repository_id(ref or 'HEAD')}"
    known = _commit(kept, repository)
    if known and ref and _WHOLE_COMMIT.fullmatch(ref):
        return known, ""
    options = ["--quiet", "--force", "--depth", "1", "--no-tags", "--no-recurse-submodules", "--update-shallow"]
    try:
        _patiently(["fetch", *options, "--", location.address, ref or "HEAD"], repository, location)
    except GitFailed as exc:
        if ref and _NO_REF.search(str(exc)):
            raise ConfigError(
                f"{location.address} has no branch, tag or commit {ref!r}. A commit is named by its full hash. "
                f"To see what there is: git ls-remote {location.address}"
            ) from exc
        error = fetch_error(location, repository, exc)
        if known is None or not isinstance(error, UpstreamUnavailable):
            raise error from exc
        return known, f"{location.address} does not answer: the commit of the last time, {known[:12]}, is used."
    commit = run_git(["rev-parse", "FETCH_HEAD^{commit}"], repository).strip()
    run_git(["update-ref", kept, commit], repository)
    return commit, ""


def _patiently(arguments: list[str], repository: Path, location: Location) -> None:
    """Run a git command that reaches a server, again where what it failed for may pass."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

    def may_pass(error: BaseException) -> bool:
        return (
            isinstance(error, GitFailed)
            and not _NO_REF.search(str(error))
            and isinstance(fetch_error(location, repository, error), UpstreamUnavailable)
        )

    wait = wait_exponential(multiplier=_PAUSE_SECONDS)
    again = retry_if_exception(may_pass)
    Retrying(retry=again, stop=stop_after_attempt(_ATTEMPTS), wait=wait, reraise=True)(
        run_git, arguments, repository, location
    )


def _commit(name: str, repository: Path) -> str | None:
    try:
        return run_git(["rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"], repository).strip() or None
    except GitFailed:
        return None


def _remove_oldest(home: Path, repository: Path) -> None:
    folders = sorted((path for path in home.iterdir() if (path / ".git").is_file()), key=lambda it: it.stat().st_mtime)
    for folder in folders[:-_KEPT]:
        run_git(["worktree", "remove", "--force", str(folder)], repository)
