"""The packages that a dbt project asks for: whether they are there, and how they come there."""

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
from pathlib import Path
from typing import Any, cast

from flows.engine.context.project_files import look_ups_of, packages_folder, yaml_mapping
from flows.engine.context.reporting import current_reporter
from infrastructure.errors import ConfigError, TributaryError, UpstreamUnavailable
from infrastructure.passed_on import for_dbt
from infrastructure.plain_text import count_of, lines_of, plain
from infrastructure.private_files import opener, private_folder, write_whole
from infrastructure.program import find_program

# `--no-deps` sets it.
NO_DEPS_VARIABLE = "TRIBUTARY_NO_DEPS"
SECONDS = 600.0
_FILES = ("packages.yml", "dependencies.yml", "package-lock.yml")
_POLL_SECONDS = 0.2
_OWN_DBT = (sys.executable, "-P", "-m", "dbt.cli.main")
_AWAY = re.compile(r"connection|could not resolve|unable to access|timed? ?out|unreachable|max retries", re.IGNORECASE)


def require_packages(place: Path, packages: Path | None) -> None:
    """Make sure that the packages which a project asks for are installed.

    Args:
        packages: their folder; None where only dbt knows it.

    Raises:
        ConfigError: none is.
    """
    if packages is None:
        return  # dbt knows where they are, and says when one is missing.
    wanted = wanted_packages(place)
    if wanted and not installed_packages(packages):
        raise ConfigError(
            f"The dbt project {place} needs {count_of(len(wanted), 'package')} and none is installed. "
            f"Install them with: uv run dbt deps --project-dir {place}"
        )


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
            reporter.note(f"Installed {count_of(count, 'package')} with dbt deps in {time.monotonic() - began:.0f} s.")
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
    text = plain(said)
    shown = "\n  ".join(lines_of("\n".join(text.strip().splitlines()[-6:]), 6, 200))
    kind = UpstreamUnavailable if _AWAY.search(text) else ConfigError
    return kind(f"dbt deps can't install the packages of {place}. {by_hand}\n  {shown}")
