"""A dbt project on disk: what has to be known of it before dbt starts, and the packages that it needs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from flows.engine.context.project_files import look_ups_of, packages_folder, yaml_mapping
from flows.engine.context.reporting import current_reporter
from infrastructure.errors import ConfigError, TributaryError, UpstreamUnavailable
from infrastructure.passed_on import for_dbt
from infrastructure.plain_text import lines_of
from infrastructure.private_files import opener, private_folder, write_whole
from infrastructure.program import find_program
from infrastructure.workspace import workspace

# `--no-deps` sets it.
NO_DEPS_VARIABLE = "TRIBUTARY_NO_DEPS"
SECONDS = 600.0
_FILES = ("packages.yml", "dependencies.yml", "package-lock.yml")
_POLL_SECONDS = 0.2
_OWN_DBT = (sys.executable, "-P", "-m", "dbt.cli.main")
_AWAY = re.compile(r"connection|could not resolve|unable to access|timed? ?out|unreachable|max retries", re.IGNORECASE)


@dataclass(frozen=True)
class Project:
    """A dbt project.

    Attributes:
        folder: absolute.
        profile: the profile that the project asks for.
    """

    folder: Path
    name: str
    profile: str


def project_folder(folder: Path | str | None) -> Path:
    """Return the folder of a project; that of the workspace's when none is given."""
    return Path(folder).expanduser().absolute() if folder else workspace().project


def project_to_run(folder: Path | str | None = None) -> Project:
    """Read a dbt project as `read_project` does, after its packages are installed where they are missing.

    Raises:
        ConfigError: see `read_project` and `ensure_packages`.
        UpstreamUnavailable: packages are missing, and a server that has them did not answer.
    """
    ensure_packages(project_folder(folder))
    return read_project(folder)


def read_project(folder: Path | str | None = None) -> Project:
    """Read a dbt project's own file; that of the workspace when no folder is given.

    Raises:
        ConfigError: the folder is no dbt project, its file can't be read, or its packages are not installed.
    """
    place = project_folder(folder)
    path = place / "dbt_project.yml"
    if not place.is_dir():
        raise ConfigError(f"There is no folder {place}. Give the folder of a dbt project with --project-dir.")
    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as exc:
        raise ConfigError(
            f"{place} is not a dbt project: it has no dbt_project.yml. Give its folder with --project-dir."
        ) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not valid YAML. Mend that file, then run again:\n  {_shown(exc)}") from exc
    if not isinstance(document, dict) or cast(dict[str, Any], document).get("name") is None:
        raise ConfigError(f"{path} has no name. Every dbt project has one; see dbt's project reference.")
    settings = cast(dict[str, Any], document)
    _require_packages(place, packages_folder(place, os.environ))
    return Project(
        folder=place,
        # `name: 2024` is a number to YAML; whether it will do is for dbt to say.
        name=str(settings["name"]),
        # dbt is told the name in any case, so a project that names none can have its own.
        profile=str(settings.get("profile") or settings["name"]),
    )


def _require_packages(place: Path, packages: Path | None) -> None:
    if packages is None:
        return  # dbt knows where they are, and says when one is missing.
    wanted = wanted_packages(place)
    if wanted and not installed_packages(packages):
        raise ConfigError(
            f"The dbt project {place} needs {len(wanted)} packages and none is installed. "
            f"Install them with: uv run dbt deps --project-dir {place}"
        )


def _shown(error: Exception) -> str:
    return "\n  ".join(lines_of(str(error), 12, 200))


def wanted_packages(place: Path) -> list[Any]:
    """Return the packages that a project asks for; dbt says what is wrong with a file that can't be read."""
    return [
        wanted for name in _FILES[:2] for wanted in cast(list[Any], yaml_mapping(place / name).get("packages") or [])
    ]


def installed_packages(packages: Path) -> list[Path]:
    """Return the folders of the packages that are installed."""
    return [path for path in packages.iterdir() if path.is_dir()] if packages.is_dir() else []


def ensure_packages(place: Path, environ: Mapping[str, str] | None = None, timeout_seconds: float = SECONDS) -> None:
    """Run `dbt deps` if packages are missing, or if the project asks for others than those that this installed.

    One process at a time does it for a project. Packages that were installed by hand are left alone. When others can't
    be had, those that are there stay and are used.

    Raises:
        ConfigError: dbt can't install them, and there are none.
        UpstreamUnavailable: the same, as a server did not answer.
    """
    environ = os.environ if environ is None else environ
    packages = packages_folder(place, environ)
    if environ.get(NO_DEPS_VARIABLE) or packages is None or not wanted_packages(place):
        return
    note = _note_of(place, environ)
    if _is_as_wanted(place, packages, note):
        return
    deadline = time.monotonic() + timeout_seconds
    with _alone(note.with_suffix(".lock"), place, deadline):
        # Another process may have done it while this one waited.
        if not _is_as_wanted(place, packages, note) and _install(place, packages, environ, deadline):
            # Without it, packages that are there count as installed by hand.
            with contextlib.suppress(OSError):
                write_whole(note, _digest(place).encode())


def _is_as_wanted(place: Path, packages: Path, note: Path) -> bool:
    if not installed_packages(packages):
        return False
    try:
        return note.read_text() == _digest(place)
    except OSError:
        return True  # Installed by hand, or with the image.


def _digest(place: Path) -> str:
    whole = hashlib.sha256()
    for name in _FILES:
        with contextlib.suppress(OSError):
            whole.update(name.encode() + b"\0" + (place / name).read_bytes() + b"\0")
    return whole.hexdigest()


def _note_of(place: Path, environ: Mapping[str, str]) -> Path:
    """Return the file in the user's cache that says which packages were installed here."""
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tributary" / "packages"
    name = hashlib.sha256(os.path.realpath(place).encode()).hexdigest()[:16]
    return cache / f"{name}.txt"


@contextmanager
def _alone(path: Path, place: Path, deadline: float) -> Iterator[None]:
    try:
        private_folder(path.parent)
        file = open(path, "w", opener=opener)  # noqa: SIM115  (what is done inside must not pass for an error of opening it)
    except OSError as exc:
        raise ConfigError(
            f"{path} can't be written ({exc.strerror}), which keeps two processes from installing packages at once. "
            f"Set XDG_CACHE_HOME to a folder that can, or install them: uv run dbt deps --project-dir {place}"
        ) from exc
    with file:
        is_said = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UpstreamUnavailable(
                        f"Another process has been installing the packages of {place} for long. Try again later."
                    ) from None
                if not is_said:
                    current_reporter().note(f"Waiting for another process that installs the packages of {place}.")
                    is_said = True
                time.sleep(_POLL_SECONDS)
        yield


def _install(place: Path, packages: Path, environ: Mapping[str, str], deadline: float) -> bool:
    """Install what is asked for; return whether it is there, and not what was there before."""
    reporter = current_reporter()
    reporter.stage("dbt deps")
    began = time.monotonic()
    # dbt removes what is there before it gets anything new.
    before = packages.with_name(f"{packages.name}.before") if installed_packages(packages) else None
    if before:
        packages.rename(before)
    try:
        failure = run_deps(place, environ, deadline)
        if failure is None:
            count = len(installed_packages(packages))
            reporter.note(f"Installed {count} packages with dbt deps in {time.monotonic() - began:.0f} s.")
    except BaseException:
        _put_back(before, packages)
        raise
    if failure is not None:
        _put_back(before, packages)
        if before is None:
            raise failure
        reporter.note(f"The packages that are installed are used, though others are asked for. {failure}")
    elif before:
        _remove(before)
    return failure is None


def _put_back(before: Path | None, packages: Path) -> None:
    if before:
        _remove(packages)
        before.rename(packages)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def run_deps(place: Path, environ: Mapping[str, str], deadline: float) -> TributaryError | None:
    """Run `dbt deps`; return why it failed."""
    program = find_program(environ=environ)
    command = [*([program.path] if program.path else _OWN_DBT), "deps", "--project-dir", str(place)]
    by_hand = f"To see more: uv run dbt deps --project-dir {place}. With --no-deps it is not tried."
    with subprocess.Popen(
        command,
        env=for_dbt(environ, {}, (), look_ups_of(place)).environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as child:
        try:
            said, _ = child.communicate(timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return UpstreamUnavailable(f"dbt deps of {place} did not end in time. {by_hand}")
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    if child.returncode == 0:
        return None
    text = re.sub(r"\x1b\[[0-9;]*m", "", said)
    shown = "\n  ".join(lines_of("\n".join(text.strip().splitlines()[-6:]), 6, 200))
    kind = UpstreamUnavailable if _AWAY.search(text) else ConfigError
    return kind(f"dbt deps can't install the packages of {place}. {by_hand}\n  {shown}")
