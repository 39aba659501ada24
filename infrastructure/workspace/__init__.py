"""Where everything is that a user edits: the folder of a workspace, and the files in it.

A workspace is marked by a `tributary.yml`. It is the one that `--workspace` or TRIBUTARY_WORKSPACE names, else the
first one upwards from the current folder, else the example: this repository, whose files stand beside the code that
reads them. Relative paths in the files of a workspace start at its folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from infrastructure.commands import program
from infrastructure.errors import ConfigError
from infrastructure.workspace.places import ROOT, NamedProject, Places

MARKER = "tributary.yml"
WORKSPACE_VARIABLE = "TRIBUTARY_WORKSPACE"

_OF_THE_EXAMPLE = Places(
    project="dbt",
    targets="infrastructure/targets.yml",
    schedules="deployments/schedules.yml",
    routes="flows/alerts/routes.yml",
    health="flows/history/health.yml",
    audit="flows/runbook/audit/audit.yml",
    refresh="flows/runbook/full_refresh/refresh.yml",
)


@dataclass(frozen=True)
class Workspace:
    """A folder with everything that a user edits.

    Attributes:
        folder: absolute; relative paths in its files start here.
    """

    folder: Path

    @property
    def is_example(self) -> bool:
        """Return whether it is this repository itself, which is no workspace of a user's own."""
        return self.folder == ROOT and not (ROOT / MARKER).exists()

    @cached_property
    def places(self) -> Places:
        """Return where its files are.

        Raises:
            ConfigError: its tributary.yml can't be read, or lists every mistake in it.
        """
        if self.is_example:
            return _OF_THE_EXAMPLE
        # What reads files imports much, and a command's help needs none of it.
        from infrastructure.workspace.file import read_places

        return read_places(self.folder / MARKER)

    @property
    def project(self) -> Path:
        """Return the folder of its one dbt project."""
        return self.at(self.places.project)

    def named_project(self, name: str | None) -> NamedProject | None:
        """Return the one of several projects that has a name, or that is meant where none is named.

        None where the workspace has one project, and where the name is that of no project: it may be a folder.

        Raises:
            ConfigError: none is named, there are several, and none of them is the default.
        """
        projects = self.places.projects
        if name is not None or not projects:
            return projects.get(name or "")
        if len(projects) == 1:
            return next(iter(projects.values()))
        if self.places.default_project:
            return projects[self.places.default_project]
        raise ConfigError(
            f"This workspace has several dbt projects: {', '.join(projects)}. Name one with --project, or set "
            f"`default_project` in {shown(self.folder / MARKER)}."
        )

    @property
    def targets(self) -> Path:
        """Return the file of its environments."""
        return self.at(self.places.targets)

    @property
    def schedules(self) -> Path:
        """Return the file that says what runs where and when."""
        return self.at(self.places.schedules)

    @property
    def routes(self) -> Path:
        """Return the file that says which alerts go where; that of the example where it has none."""
        found = self.at(self.places.routes)
        return found if found.exists() or self.places.routes != Places.routes else EXAMPLE.routes

    def settings_of(self, procedure: Literal["health", "audit", "refresh"]) -> Path | None:
        """Return the settings of a procedure; None where it has none, so that the defaults hold."""
        found = self.at(getattr(self.places, procedure))
        return found if found.exists() or getattr(self.places, procedure) != getattr(Places, procedure) else None

    def at(self, path: str) -> Path:
        """Return a path of one of its files as an absolute one."""
        return Path(os.path.normpath(self.folder / Path(path).expanduser()))


EXAMPLE = Workspace(ROOT)


def workspace(environ: Mapping[str, str] | None = None, start: Path | None = None) -> Workspace:
    """Return the workspace in use.

    Args:
        environ: where TRIBUTARY_WORKSPACE is looked up; the process environment when None.
        start: where the search upwards starts; the current folder when None.

    Raises:
        ConfigError: the folder that is named is no workspace.
    """
    if named := (os.environ if environ is None else environ).get(WORKSPACE_VARIABLE):
        return workspace_at(named)
    try:
        start = start or Path.cwd()
    except FileNotFoundError:
        return EXAMPLE  # The current folder was deleted.
    return next((Workspace(folder) for folder in (start, *start.parents) if os.path.isfile(folder / MARKER)), EXAMPLE)


def workspace_at(named: str | Path) -> Workspace:
    """Return the workspace in a folder.

    Raises:
        ConfigError: there is none.
    """
    folder = Path(os.path.abspath(Path(named).expanduser()))
    found = Workspace(folder)
    if not (folder / MARKER).is_file() and not found.is_example:
        why = f"it has no {MARKER}" if folder.is_dir() else "the folder does not exist"
        raise ConfigError(
            f"There is no workspace in {folder}: {why}. "
            f"Name another folder with --workspace or {WORKSPACE_VARIABLE}, or write one with: "
            f"{program()} init {folder}"
        )
    return found


def shown(path: Path) -> str:
    """Return a file as messages name it: as seen from this repository or the current folder, where it is inside."""
    for base in (ROOT, Path.cwd()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)


def targets_file() -> str:
    """Return the targets file in use, as messages name it."""
    try:
        return shown(workspace().targets)
    except (ConfigError, OSError):
        return "targets.yml"
