"""Have the files of a git repository at a branch, tag or commit in a folder of their own."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.git.process import GitFailed, Location, run_git
from infrastructure.git.repository import cache_folder, fetch_error, name_of, parse_location, repository_id
from infrastructure.private_files import private_folder

_WAIT_SECONDS = 600
# Folders of earlier commits, which a run that is going on may still read.
_KEPT = 10
_NO_REF = re.compile(r"couldn't find remote ref|not our ref|no such ref", re.IGNORECASE)
_WHOLE_COMMIT = re.compile(r"[0-9a-f]{40}")


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


def check_out(address: str, ref: str | None = None, token: str | None = None) -> Checkout:
    """Fetch a branch, tag or commit without its history, and return the folder of its files.

    Each commit has a folder of its own, so that a run keeps its files while a later one takes newer files. A commit
    that is named by its full hash is fetched once. Where the server does not answer, the commit of the last time is
    used, and the note says so.

    Args:
        address: as `parse_location` takes it; a path may be relative to the current folder.
        ref: None for the repository's main branch.
        token: for an https address; it is in no file, URL or command line.

    Raises:
        ConfigError: git is missing, or there is no such repository, branch, tag or commit.
        UpstreamUnavailable: the server does not answer, and nothing was fetched before.
    """
    # It tries out the file system when it is imported.
    import filelock

    if shutil.which("git") is None:
        raise ConfigError("git, which fetches projects, is not installed or not on the PATH. Install it.")
    location = _signed_in(_as_url(parse_location(address)), token)
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


def _signed_in(location: Location, token: str | None) -> Location:
    if not token:
        return location
    if not location.address.startswith(("https://", "http://")):
        raise ConfigError(f"{location.address} takes no token: only an https address does. Leave `token_env` out.")
    # Hosts of git take any user name beside a token; this one is GitHub's own.
    return replace(location, username="x-access-token", password=token)


def _fetched(location: Location, ref: str | None, repository: Path) -> tuple[str, str]:
    """Return the commit of a ref, and what is to be said of it."""
    kept = f"refs/tributary/{repository_id(ref or 'HEAD')}"
    known = _commit(kept, repository)
    if known and ref and _WHOLE_COMMIT.fullmatch(ref):
        return known, ""
    options = ["--quiet", "--force", "--depth", "1", "--no-tags", "--no-recurse-submodules", "--update-shallow"]
    try:
        run_git(["fetch", *options, "--", location.address, ref or "HEAD"], repository, location)
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


def _commit(name: str, repository: Path) -> str | None:
    try:
        return run_git(["rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"], repository).strip() or None
    except GitFailed:
        return None


def _remove_oldest(home: Path, repository: Path) -> None:
    folders = sorted((path for path in home.iterdir() if (path / ".git").is_file()), key=lambda it: it.stat().st_mtime)
    for folder in folders[:-_KEPT]:
        run_git(["worktree", "remove", "--force", str(folder)], repository)
