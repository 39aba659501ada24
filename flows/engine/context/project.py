"""A dbt project on disk: what has to be known of it before dbt starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from flows.engine.context.packages import ensure_packages, require_packages
from flows.engine.context.project_files import packages_folder
from infrastructure.errors import ConfigError
from infrastructure.plain_text import lines_of
from infrastructure.workspace import workspace


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
    require_packages(place, packages_folder(place, os.environ))
    return Project(
        folder=place,
        # `name: 2024` is a number to YAML; whether it will do is for dbt to say.
        name=str(settings["name"]),
        # dbt is told the name in any case, so a project that names none can have its own.
        profile=str(settings.get("profile") or settings["name"]),
    )


def _shown(error: Exception) -> str:
    return "\n  ".join(lines_of(str(error), 12, 200))
