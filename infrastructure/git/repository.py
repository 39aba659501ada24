"""Find a git repository by its path, or fetch it by its URL."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from infrastructure.errors import ConfigError, TributaryError, UpstreamUnavailable
from infrastructure.git.process import URL_SCHEMES, GitFailed, Location, run_git
from infrastructure.private_files import private_folder

FETCHED_HEAD = "refs/tributary/head"

# Error messages of git, ssh and the large hosts.
NO_ENTRY = re.compile(
    r"could not read (Username|Password)|Authentication failed|Permission denied|returned error: 40[13]"
)
NO_REPOSITORY = re.compile(
    r"[Rr]epository .*not found|does not appear to be a git repository|does not exist|not a git repo"
    r"|not valid: is this a git repository"
)


@dataclass(frozen=True)
class Repository:
    """What is known about a repository before its commits are read.

    Attributes:
        repository_id: stays the same for one path or URL; all worktrees of a clone share one.
        url: where it comes from, without credentials.
        head_hash: None when it has no commit yet.
        default_branch: the branch that HEAD names; "HEAD" when it names none.
        folder: where to run git.
        mailmap_options: options git needs to find the repository's own .mailmap.
    """

    repository_id: str
    name: str
    url: str
    head_hash: str | None
    default_branch: str
    is_shallow: bool
    folder: Path
    mailmap_options: tuple[str, ...] = ()


def parse_location(text: str) -> Location:
    """Read a repository argument: a path, a URL, or host:path as ssh has it.

    Raises:
        ConfigError: it would be an option of git, would make git run a program, or is not a URL that git can fetch.
    """
    if not text or text.startswith("-") or any(character in text for character in "\0\r\n"):
        # A secret pasted with its line break is a common mistake, so such text is not shown.
        shown = re.sub(r"//.*@", "//***@", text, flags=re.DOTALL)
        raise ConfigError(
            f"{shown!r} is not a repository: give a path, with ./ before it if it begins with a dash, or a URL "
            "without line breaks."
        )
    if helper := re.match(r"[A-Za-z0-9+.-]+::", text):
        raise ConfigError(
            f"Repositories behind {helper[0]} are refused, because git would run a program for them. "
            f"Use a path, or a URL that begins with {', '.join(URL_SCHEMES)}."
        )
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
        return _parse_url(text, scheme[1].lower())
    is_drive = re.match(r"[A-Za-z]:[\\/]", text)
    if not is_drive and (ssh := re.match(r"(?:[^/:@]+@)?([^/:]+):", text)):
        if ssh[1].startswith("-"):
            raise ConfigError(f"{text!r} is not a repository: a host name does not begin with a dash.")
        if ssh[1].lower() in URL_SCHEMES or "@" in text[ssh.end() :].split("/")[0]:
            raise ConfigError(
                "A repository address cannot be read: a URL begins with https:// or ssh://, and host:path "
                "takes no password (ssh signs in with a key)."
            )
        return Location(text, is_url=True)
    return Location(text, is_url=False)


def _parse_url(text: str, scheme: str) -> Location:
    if scheme not in URL_SCHEMES:
        raise ConfigError(
            f"Repositories cannot be fetched over {scheme}. Use a path, or a URL that begins with "
            f"{', '.join(URL_SCHEMES)}."
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        # Neither the URL nor this error is shown or chained: a part of the password may be in both.
        raise ConfigError(
            f"A repository URL ({scheme}) cannot be read. Write special characters of a user name or "
            "password as %XX, or leave them out and let git ask its credential helper."
        ) from None
    if parts.query or parts.fragment:
        raise ConfigError(
            f"The URL of {host}{parts.path} has a ? or # part, which repository addresses do not have: remove it."
        )
    if host.startswith("-") or (scheme != "file" and not host):
        raise ConfigError(f"{scheme}://{host}{parts.path} is not a repository: the name of a host is missing.")
    netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    if scheme == "ssh" and parts.username:
        netloc = f"{parts.username}@{netloc}"
    address = urlunsplit((scheme, netloc, parts.path, "", ""))
    if scheme in ("http", "https") and (parts.username or parts.password):
        return Location(address, True, unquote(parts.username or ""), unquote(parts.password or ""))
    return Location(address, is_url=True)


def open_repository(location: Location, report: Callable[[str], None]) -> Repository:
    """Find a local repository, or fetch a remote one into the cache folder.

    Raises:
        ConfigError: git is missing, or there is no repository that this user may read.
        UpstreamUnavailable: the server of a URL does not answer.
    """
    if shutil.which("git") is None:
        raise ConfigError(
            "git, which reads repositories, is not installed or not on the PATH. Install it: "
            "apt-get install git, dnf install git, brew install git, or from https://git-scm.com/downloads"
        )
    return _fetch(location, report) if location.is_url else _open_local(location)


def _open_local(location: Location) -> Repository:
    folder = Path(os.path.expanduser(location.address))
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}: give the path of a git repository, or its URL.")
    try:
        common = (folder / run_git(["rev-parse", "--git-common-dir"], folder).strip()).resolve()
        name = (common.parent if common.name == ".git" else common).name.removesuffix(".git")
        branch = _lenient(["symbolic-ref", "--quiet", "--short", "HEAD"], folder)
        origin = _lenient(["config", "--get", "remote.origin.url"], folder)
        return Repository(
            repository_id=repository_id(str(common)),
            name=name,
            url=_without_credentials(origin) if origin else common.as_uri(),
            head_hash=_head_hash("HEAD", folder),
            default_branch=branch or "HEAD",
            is_shallow=run_git(["rev-parse", "--is-shallow-repository"], folder).strip() == "true",
            folder=folder,
        )
    except GitFailed as exc:
        raise local_error(folder, exc) from exc


def _head_hash(name: str, folder: Path) -> str | None:
    if found := _lenient(["rev-parse", "--quiet", "--verify", name], folder):
        return found
    try:
        run_git(["log", "-1", "--format=%H"], folder)
    except GitFailed as exc:
        if "does not have any commits yet" not in str(exc):
            raise
    return None


def _fetch(location: Location, report: Callable[[str], None]) -> Repository:
    address = location.address
    its_id = repository_id(address.rstrip("/").removesuffix(".git"))
    folder = cache_folder() / f"{name_of(address)}-{its_id}.git"
    try:
        private_folder(folder)
        run_git(["init", "--quiet", "--bare", "--template=", "--", str(folder)])
    except (OSError, GitFailed) as exc:
        raise ConfigError(
            f"The folder {folder}, where fetched repositories are kept, cannot be written. Give this user "
            "write access, or set XDG_CACHE_HOME to another folder."
        ) from exc
    report(f"Fetching {address} into {folder}.")
    try:
        remote = run_git(["ls-remote", "--symref", "--", address, "HEAD", "refs/heads/*"], folder, location)
        branch = re.search(r"^ref: refs/heads/(.+)\tHEAD$", remote, re.MULTILINE)
        has_commits = re.search(r"^[0-9a-f]{40,}\tHEAD$", remote, re.MULTILINE) is not None
        if remote and not has_commits:
            raise ConfigError(
                f"{address} has branches, but its HEAD names none of them, so that it is unknown which one to load. "
                "Choose a default branch on the server: git symbolic-ref HEAD refs/heads/NAME"
            )
        if has_commits:
            options = ["--quiet", "--force", "--no-tags", "--no-recurse-submodules", "--update-shallow"]
            run_git(["fetch", *options, "--", address, f"+HEAD:{FETCHED_HEAD}"], folder, location)
        return Repository(
            repository_id=its_id,
            name=re.split(r"[/:\\]", address.rstrip("/"))[-1].removesuffix(".git") or "repository",
            url=address,
            head_hash=_head_hash(FETCHED_HEAD, folder) if has_commits else None,
            default_branch=branch[1] if branch else "HEAD",
            is_shallow=run_git(["rev-parse", "--is-shallow-repository"], folder).strip() == "true",
            folder=folder,
            mailmap_options=("-c", f"mailmap.blob={FETCHED_HEAD}:.mailmap"),
        )
    except GitFailed as exc:
        raise fetch_error(location, folder, exc) from exc


def cache_folder() -> Path:
    """Return the folder of fetched repositories: tributary/repositories in $XDG_CACHE_HOME or ~/.cache.

    A user without a home, as containers have them, gets one in the folder for temporary files.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if not base:
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            base = tempfile.gettempdir()
    return Path(base) / "tributary" / "repositories"


def local_error(folder: Path, exc: GitFailed) -> TributaryError:
    """Return the error for a local repository that cannot be read, with what to do."""
    text = str(exc)
    if "dubious ownership" in text:
        owned = re.search(r"safe\.directory (.+)", text)
        return ConfigError(
            f"The repository {folder} belongs to another user, so git refuses to read it. If you "
            f"trust it: git config --global --add safe.directory {owned[1] if owned else folder}"
        )
    if "not a git repository" in text:
        return ConfigError(f"{folder} is not in a git repository: give the path of one, or its URL.")
    if "promisor" in text:
        return ConfigError(
            f"The repository {folder} is a partial clone: the file contents that changed lines are counted "
            "from are not all in it. Give its URL instead, which fetches all of them."
        )
    return ConfigError(f"git cannot read the repository {folder} ({exc.message}). Check it: git -C {folder} fsck")


def fetch_error(location: Location, folder: Path, exc: GitFailed) -> TributaryError:
    """Return the error for a URL that could not be fetched, with what to do."""
    text = str(exc)
    address = location.address
    if NO_ENTRY.search(text):
        return ConfigError(
            f"{address} asks for credentials, and those given are missing or wrong. "
            f"Try: git ls-remote {address} (see `git help credentials` for how git keeps them)."
        )
    if "dubious ownership" in text:
        return local_error(Path(urlsplit(address).path), exc)
    if NO_REPOSITORY.search(text):
        return ConfigError(f"There is no git repository at {address} ({exc.message}): check the URL.")
    if "Could not read from remote" in text or "unable to access" in text or "Could not resolve" in text:
        return UpstreamUnavailable(f"{address} does not answer ({exc.message}). Try: git ls-remote {address}")
    return UpstreamUnavailable(
        f"{address} could not be fetched ({exc.message}). Try again; if that does not help, delete the copy and "
        f"fetch it again: rm -r {folder}"
    )


def _lenient(arguments: Sequence[str], folder: Path) -> str | None:
    try:
        return run_git(arguments, folder).strip() or None
    except GitFailed:
        return None


def name_of(address: str) -> str:
    """Return the name of a repository as the name of a folder."""
    name = re.split(r"[/:\\]", address.rstrip("/"))[-1].removesuffix(".git") or "repository"
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def repository_id(place: str) -> str:
    """Return a short name for a place, the same everywhere."""
    return hashlib.sha256(place.encode("utf-8", errors="surrogateescape")).hexdigest()[:16]


def _without_credentials(url: str) -> str:
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/]*@", r"\1", url).split("?")[0]
