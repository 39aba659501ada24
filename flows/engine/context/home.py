"""Whose state is it: a folder for each project at a place, also where two projects have one name.

The first project of a name has `<state>/<name>`, the next `<name>@2`, and so on. Each says in a file of its own whose
it is: a repository and the path in it, which is the same wherever it is cloned to, else the real folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from infrastructure.private_files import private_folder, write_whole

PLACE = "place.json"
_FORMAT = 1
_PORTS = {22, 80, 443}
# git's short form of an address: user@host:path.
_SHORT = re.compile(r"(?:[^@/]+@)?(?P<host>[^:/@]+):(?!//)(?P<path>.+)")
_GIVEN = re.compile(rb'"project_dir":\s*("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True)
class ProjectPlace:
    """Where a project is.

    Attributes:
        folder: the real one.
        repository: the address of git's remote "origin", without user and protocol; "" where there is none.
        path: of the project in the repository.
    """

    folder: str
    repository: str = ""
    path: str = ""

    def is_as(self, other: ProjectPlace) -> bool:
        """Say whether it is the same project; where one of the two has no repository, its folder tells."""
        if self.repository and other.repository:
            return (self.repository, self.path) == (other.repository, other.path)
        return self.folder == other.folder

    def has_moved_to(self, other: ProjectPlace) -> bool:
        """Say whether the other is this project, which is not here any more: nothing else tells them apart."""
        if self.repository != other.repository:
            return not self.repository and not Path(self.folder).exists()
        if not self.repository:
            return not Path(self.folder).exists()
        root = Path(other.folder, *(".." for _ in Path(other.path).parts))
        return not (root / self.path / "dbt_project.yml").exists()

    def __str__(self) -> str:
        return f"{self.folder} ({self.repository})" if self.repository else self.folder


def place_of(folder: Path) -> ProjectPlace:
    """Find out where a project is; git is not started for it."""
    real = folder.resolve()
    for root in (real, *real.parents):
        if (root / ".git").exists():
            origin = _origin(root)
            return ProjectPlace(str(real), origin, real.relative_to(root).as_posix()) if origin else _only(real)
    return _only(real)


def home_of(root: Path, name: str, folder: Path) -> tuple[Path, str]:
    """Return the folder below `root` that holds the state of a project, and what is to be said of it; "" for nothing.

    Args:
        name: of the project, fit for a folder.

    Raises:
        OSError: it can't be read or made.
    """
    here = place_of(folder)
    while True:
        first = root / name
        homes = [home for home in (first, *sorted(root.glob(f"{name}@*"), key=_number)) if home.is_dir()]
        places = {home: _read(home) for home in homes}
        for home, there in places.items():
            if there and there.is_as(here):
                return home, _keep(home, there, here, name)
        for home, there in places.items():
            if there is None or there.has_moved_to(here):
                return home, _keep(home, there, here, name)
        free = (root / f"{name}@{number}" for number in count(2))
        home = next(path for path in chain([first], free) if path not in homes)
        if _claim(home, here):
            taken = f"{first} holds the state of another project {name}, at {places.get(first)}"
            return home, "" if home == first else f"{taken}: that of this one, at {here}, is kept in {home}."


def _number(home: Path) -> int:
    digits = home.name.rpartition("@")[2]
    return int(digits) if digits.isdigit() else 0


def _only(real: Path) -> ProjectPlace:
    return ProjectPlace(str(real))


def _keep(home: Path, there: ProjectPlace | None, here: ProjectPlace, name: str) -> str:
    if there != here or not (home / PLACE).exists():
        write_whole(home / PLACE, _text(here))
    if there is None or there.folder == here.folder:
        return ""
    return f"Project {name} has moved from {there} to {here}: it goes on with its state in {home}."


def _claim(home: Path, here: ProjectPlace) -> bool:
    """Mark a folder with its owner; return False when another process took it at this moment."""
    private_folder(home.parent)
    draft = Path(tempfile.mkdtemp(prefix=".home-", dir=home.parent))
    try:
        write_whole(draft / PLACE, _text(here))
        draft.rename(home)
    except OSError:
        if home.is_dir():
            return False
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return True


def _text(place: ProjectPlace) -> bytes:
    return json.dumps({"format": _FORMAT, **asdict(place)}, indent=2).encode()


def _read(home: Path) -> ProjectPlace | None:
    """Return the owner of a folder; None without one, such as when its file is broken."""
    try:
        said = cast(dict[str, Any], json.loads((home / PLACE).read_bytes()))
        return ProjectPlace(str(said["folder"]), str(said["repository"]), str(said["path"]))
    except FileNotFoundError:
        return _of_an_older_version(home)
    except (ValueError, LookupError, TypeError):
        return None


def _of_an_older_version(home: Path) -> ProjectPlace | None:
    """Return whose a folder is that does not say it: the project that dbt was last given there."""
    found = sorted(home.glob("*/target/run_results.json"), key=lambda path: path.stat().st_mtime)
    # Searched, not read: it can be large, and one word of it is wanted.
    given = _GIVEN.search(found[-1].read_bytes()) if found else None
    return place_of(Path(json.loads(given[1]))) if given else None


def _origin(root: Path) -> str:
    """Return the address of the remote "origin", as it is compared; "" where there is none."""
    try:
        lines = _git_folder(root).joinpath("config").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    section = ""
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = line
        key, _, value = line.partition("=")
        if section == '[remote "origin"]' and key.strip().lower() == "url":
            return _without_user(value.strip().strip('"'), root)
    return ""


def _git_folder(root: Path) -> Path:
    """Return the folder with git's settings; a worktree and a submodule have a file that leads there."""
    folder = root / ".git"
    if folder.is_file():
        folder = root / folder.read_text("utf-8").removeprefix("gitdir:").strip()
    common = folder / "commondir"
    return folder / common.read_text("utf-8").strip() if common.is_file() else folder


def _without_user(address: str, root: Path) -> str:
    if short := _SHORT.fullmatch(address):
        host, path = short["host"], short["path"]
    elif "://" in address:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port and parts.port not in _PORTS else ""
        host, path = (parts.hostname or "") + port, parts.path
    else:
        host, path = "", os.path.normpath(root / address)
    return f"{host.lower()}/{path.strip('/').removesuffix('.git')}"
