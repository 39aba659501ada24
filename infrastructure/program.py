"""The dbt of a target: in this environment, or a program elsewhere; its version, and what it can't do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from infrastructure.errors import ConfigError
from infrastructure.passed_on import for_any_program
from infrastructure.plain_text import plain
from infrastructure.private_files import private_folder, write_whole
from infrastructure.workspace import targets_file, workspace

# Overrides the dbt of every target for one run; `--dbt` sets it.
PROGRAM_VARIABLE = "TRIBUTARY_DBT"
OLDEST = (1, 8)
_NEWEST_GENERATION = 2
_SECONDS = 60.0
# The names of the program in a virtual environment; the second is that of dbt 2's early releases on PyPI.
_NAMES = ("dbt", "dbt-core-experimental-parser")
_INSTALLED = re.compile(r"^\s*-\s*installed:\s*(\d+\.\d+\S*)", re.MULTILINE)
_ONE_LINE = re.compile(r"^dbt(?:[- ][a-z]+)?\s+(\d+\.\d+\.\S+)\s*$", re.MULTILINE)
_PLUGIN = re.compile(r"^\s*-\s*(\w+):\s+\d+\.\d+", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """One dbt.

    Attributes:
        path: of the program; None for dbt 1 of this environment.
        version: as `--version` prints it.
        adapters: the warehouses of its adapters; None where that is unknown, as for dbt 2, which includes them.
    """

    path: str | None
    version: str
    adapters: tuple[str, ...] | None = None

    @cached_property
    def numbers(self) -> tuple[int, int]:
        """Return the first two numbers of the version."""
        major, minor = re.findall(r"\d+", self.version)[:2]
        return int(major), int(minor)

    @property
    def generation(self) -> int:
        """Return 1 for dbt in Python, 2 for dbt in Rust."""
        return self.numbers[0]

    @property
    def line(self) -> str:
        """Return the line of releases that it is of, such as 1.12."""
        return ".".join(map(str, self.numbers))

    @property
    def has_freshness(self) -> bool:
        """Return whether `source freshness` checks anything; 2.0.0-alpha.4 exits with 0 and does not look."""
        return not (self.generation == 2 and "alpha" in self.version)

    @property
    def has_docs(self) -> bool:
        """Return whether `docs generate` makes the documentation site."""
        return self.generation == 1

    @property
    def has_user_settings(self) -> bool:
        """Return whether it takes flags from ~/.dbt/user_settings.yml."""
        return self.numbers >= (1, 12)

    @property
    def lacks(self) -> tuple[str, ...]:
        """Return what it can't do, each as the rest of a sentence that begins with "it can't"."""
        found = [] if self.has_freshness else ["check how fresh sources are (run with --no-freshness)"]
        if not self.has_docs:
            found.append("make the documentation site")
        if self.path is not None:
            found.append("write the flow run's id into its statements")
        return tuple(found)

    @property
    def sentence(self) -> str:
        """Return which dbt it is and what it can't do, without a full stop."""
        return f"{self}. It can't {' or '.join(self.lacks)}" if self.lacks else str(self)

    def __str__(self) -> str:
        """Return its version and where it is."""
        return f"dbt {self.version} ({self.path or 'of this environment'})"


def find_program(named: str | None = None, environ: Mapping[str, str] | None = None) -> Program:
    """Return the dbt that is named, or that of this environment; its version is read once.

    Args:
        named: a program, the folder of a virtual environment, or a name on the PATH; TRIBUTARY_DBT comes before it.

    Raises:
        ConfigError: there is none, or its version is not supported.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(PROGRAM_VARIABLE) or named
    if not named:
        own = _own()
        if own:
            return _fit(own)
        named = "dbt"
    path = _path_of(named, environ)
    if path.parent == Path(sys.executable).parent and (own := _own()):
        return _fit(own)
    status = path.stat()
    return _fit(_asked(str(path), status.st_mtime_ns, status.st_size))


def _own() -> Program | None:
    try:
        return Program(None, version("dbt-core"))
    except PackageNotFoundError:
        return None


def _path_of(named: str, environ: Mapping[str, str]) -> Path:
    if os.sep not in named:
        found = shutil.which(named, path=environ.get("PATH"))
        candidates = [Path(found)] if found else []
    else:
        place = workspace().folder / Path(named).expanduser()
        candidates = [place / part / name for part in ("bin", "") for name in _NAMES] if place.is_dir() else [place]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise ConfigError(
        f"No dbt is found as {named!r}. Set `dbt` of the target in {targets_file()}, --dbt or "
        f"{PROGRAM_VARIABLE} to a program, the folder of a virtual environment, or a name on the PATH."
    )


def _fit(program: Program) -> Program:
    if program.numbers < OLDEST:
        raise ConfigError(
            f"{program} is too old: Tributary runs dbt from {OLDEST[0]}.{OLDEST[1]} on. Install a newer one."
        )
    if program.generation > _NEWEST_GENERATION:
        raise ConfigError(
            f"{program} is newer than this version of Tributary supports: use dbt 1 or 2, or update Tributary."
        )
    return program


@lru_cache(maxsize=32)
def _asked(path: str, changed_ns: int, size_bytes: int) -> Program:
    """Run a program for its version, which takes dbt 1 some seconds, or read its answer from the cache."""
    kept = _kept_in(os.environ)
    key = f"{path}\n{changed_ns}\n{size_bytes}"
    try:
        known = json.loads(kept.read_bytes())
        found = known[key]
        adapters = found["adapters"]
        return Program(path, str(found["version"]), None if adapters is None else tuple(adapters))
    except (OSError, ValueError, KeyError, TypeError):
        known = {}
    program = _ask(path)
    try:
        private_folder(kept.parent)
        write_whole(kept, json.dumps({**known, key: asdict(program)}).encode())
    except OSError:
        # It is asked again the next time.
        pass
    return program


def _kept_in(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tributary" / "dbt-versions.json"


def _ask(path: str) -> Program:
    try:
        done = subprocess.run(
            [path, "--version"],
            env=for_any_program(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as exc:
        raise ConfigError(f"{path} did not print its version within {_SECONDS:.0f} s. Check that it is dbt.") from exc
    except OSError as exc:
        raise ConfigError(
            f"{path} can't be started: {exc.strerror}. Check that it is dbt, for this kind of machine."
        ) from exc
    said = plain(done.stdout + done.stderr)
    if found := _INSTALLED.search(said):
        return Program(path, found[1], tuple(_PLUGIN.findall(said.partition("Plugins:")[2])))
    if found := _ONE_LINE.search(said):
        return Program(path, found[1])
    first = next((line.strip() for line in said.splitlines() if line.strip()), "nothing")
    raise ConfigError(f"{path} is not a dbt that Tributary supports: --version printed {first[:120]!r}.")


def require_adapter(program: Program, warehouse: str, target: str, remedy: str) -> None:
    """Raise an error if dbt has no adapter for a warehouse, without importing its client.

    Args:
        remedy: the command that installs the adapter here.

    Raises:
        ConfigError: it has none.
    """
    if program.path is None:
        if find_spec(f"dbt.adapters.{warehouse}") is None:
            raise ConfigError(
                f"Target {target} is on {warehouse}, and dbt-{warehouse} is not installed. Install it with: {remedy}"
            )
    elif program.adapters is not None and warehouse not in program.adapters:
        raise ConfigError(
            f"Target {target} is on {warehouse}, and {program} has no adapter for it. Install dbt-{warehouse} there."
        )
