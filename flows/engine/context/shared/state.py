"""State at an address, and this machine's working copy of it.

The rest of the code reads and writes files in the working copy and knows nothing of this. A run fetches what others
left before it begins (`target.py`), and sends what it leaves.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from flows.engine.context.home import PLACE, ProjectPlace
from flows.engine.context.reporting import current_reporter
from flows.engine.context.shared.bucket import Bucket
from flows.engine.context.shared.files import COPY_VARIABLE, Merge, SharedFile, SharedLedger, writing_copy
from flows.engine.context.shared.target import Names, SharedTarget
from infrastructure.errors import UpstreamUnavailable
from infrastructure.private_files import private_folder, write_whole

# One command asks for the same several times, and a process may live for days.
_FRESH_SECONDS = 30.0


class SharedState:
    """The state at an address.

    Args:
        root: the folder of the working copy.
    """

    def __init__(self, url: str, root: Path) -> None:
        self.bucket = Bucket(url)
        self.root = root
        # What was looked up, and when.
        self._seen: dict[str, float] = {}
        self._claimed: set[Path] = set()
        self._said: set[str] = set()

    def fetch_places(self, name: str) -> None:
        """Fetch whose each folder of a project's name is, unless that was done a moment ago.

        Raises:
            TributaryError: see `Bucket`.
        """
        if self._is_fresh(f"{name}/"):
            return
        homes = [home for home in self.bucket.folders() if home == name or home.startswith(f"{name}@")]
        wanted = [f"{home}/{PLACE}" for home in homes if not (self.root / home / PLACE).exists()]
        contents = self.bucket.read_all(wanted)
        with writing_copy(self.root):
            private_folder(self.root)
            for path, content in contents.items():
                private_folder((self.root / path).parent)
                write_whole(self.root / path, content)
        self._seen[f"{name}/"] = time.monotonic()

    def _is_fresh(self, what: str) -> bool:
        return time.monotonic() - self._seen.get(what, -_FRESH_SECONDS) < _FRESH_SECONDS

    def claim(self, home: Path) -> None:
        """Say elsewhere whose a folder is, before the first run of the project writes to it.

        Raises:
            UpstreamUnavailable: another project of the name has claimed it at this very moment.
            TributaryError: see `Bucket`.
        """
        name = f"{home.name}/{PLACE}"
        if home in self._claimed:
            return
        content = (home / PLACE).read_bytes()
        if not self.bucket.create(name, content):
            there = self.bucket.read(name)
            if there is not None and not self._is_same_place(content, there):
                (home / PLACE).unlink(missing_ok=True)
                raise UpstreamUnavailable(
                    f"{self.bucket.url}/{home.name} was taken by another project of that name at this moment. "
                    "Run again: this one gets a folder of its own."
                )
        self._claimed.add(home)

    @staticmethod
    def _is_same_place(ours: bytes, theirs: bytes) -> bool:
        def place(content: bytes) -> ProjectPlace:
            said = cast(dict[str, str], json.loads(content))
            return ProjectPlace(said["folder"], said["repository"], said["path"])

        here, there = place(ours), place(theirs)
        return there.is_as(here) or there.has_moved_to(here)

    def fetch(self, folder: Path, names: Names, anew: bool = False) -> SharedTarget:
        """Fetch what other machines left of a project on a target.

        Args:
            anew: also where that was done a moment ago.

        Raises:
            TributaryError: see `Bucket`.
        """
        target = SharedTarget(self.bucket, self.root, folder, names, self.say_once)
        if anew or not self._is_fresh(str(folder)):
            target.fetch()
            self._seen[str(folder)] = time.monotonic()
        return target

    def say_once(self, text: str) -> None:
        """Say something that is found out several times in a run."""
        if text not in self._said:
            self._said.add(text)
            current_reporter().note(text)

    def file(self, path: Path, merge: Merge) -> SharedFile:
        """Return a single file of the working copy that is shared."""
        return SharedFile(self.bucket, path, path.relative_to(self.root).as_posix(), merge)

    def ledger(self, path: Path) -> SharedLedger:
        """Return a single file of the working copy that one process adds to, and others read."""
        return SharedLedger(self.bucket, path.relative_to(self.root).with_suffix("").as_posix())


_shared: dict[tuple[str, Path], SharedState] = {}


def is_address(given: str) -> bool:
    """Say whether a place of state is an address, and no folder."""
    return "://" in given


def shared_state(url: str, environ: Mapping[str, str]) -> SharedState:
    """Return the state at an address; nothing is asked for yet."""
    root = working_copy(url, environ)
    return _shared.setdefault((url, root), SharedState(url, root))


def working_copy(url: str, environ: Mapping[str, str]) -> Path:
    """Return the folder of this machine's copy of the state at an address."""
    given = environ.get(COPY_VARIABLE)
    caches = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    home = Path(given) if given else Path(caches) / "tributary" / "state"
    # Several addresses can be in use on one machine.
    return home.expanduser().absolute() / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def why(error: Exception) -> str:
    """Return an error of a store as a clause."""
    return str(error).rstrip(".")
