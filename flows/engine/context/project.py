"""A dbt project on disk: what has to be known of it before dbt starts."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from flows.engine.context.packages import ensure_packages, require_packages
from flows.engine.context.project_files import packages_folder
from flows.engine.context.reporting import current_reporter
from infrastructure.errors import ConfigError
from infrastructure.plain_text import lines_of
from infrastructure.workspace import NamedProject, Workspace, workspace

if TYPE_CHECKING:
    from infrastructure.git.checkout import Checkout


@dataclass(frozen=True)
class Project:
    """A dbt project.

    Attributes:
        folder: absolute.
        profile: the profile that the project asks for.
        dbt: the dbt that the workspace names for it, which comes before that of a target.
        commit: of the repository that it was fetched from; None for a project in a folder.
    """

    folder: Path
    name: str
    profile: str
    dbt: str | None = None
    commit: str | None = None


def project_folder(folder: Path | str | None) -> Path:
    """Return the folder of a project, given by its folder or by its name in the workspace; the workspace's when None.

    Raises:
        ConfigError: none is given and the workspace has several, or the repository of a project can't be had.
        UpstreamUnavailable: the server of a project's repository does not answer, and it was never fetched.
    """
    own = workspace()
    if named := own.named_project(str(folder) if folder else None):
        return _folder_of(own, named)
    return Path(folder).expanduser().absolute() if folder else own.project


def _folder_of(own: Workspace, named: NamedProject) -> Path:
    fetched = _fetched(own, named)
    return fetched.folder / (named.folder or ".") if fetched else own.at(named.folder or ".")


def _fetched(own: Workspace, named: NamedProject | None) -> Checkout | None:
    """Return the files of a project's repository; None for a project in a folder."""
    if named is None or named.git is None:
        return None
    address = named.git if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|[^/:]+:", named.git) else str(own.at(named.git))
    return _checked_out(named, address, os.environ.get(named.token_env or ""))


@lru_cache(maxsize=32)
def _checked_out(named: NamedProject, address: str, token: str | None) -> Checkout:
    """Return the files of a repository: once a process, so that a run reads one commit from start to end."""
    from infrastructure.git.checkout import SignIn, check_out

    if named.token_env and not token:
        raise ConfigError(f"Project {named.name} signs in with {named.token_env}, which is not set.")
    sign_in = SignIn(token) if token else None
    if named.credentials_block:
        from infrastructure.server.git_credentials import read_sign_in

        sign_in = read_sign_in(named.credentials_block, address, f"Project {named.name}")
    found = check_out(address, named.ref, sign_in)
    current_reporter().note(
        found.note or f"Project {named.name} is commit {found.commit[:12]} of {named.ref or 'its main branch'}."
    )
    return found


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
        raise ConfigError(f"There is no folder {place}. {_what_to_give(folder)}")
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
    named = workspace().named_project(str(folder) if folder else None)
    fetched = _fetched(workspace(), named)
    return Project(
        folder=place,
        # `name: 2024` is a number to YAML; whether it will do is for dbt to say.
        name=str(settings["name"]),
        # dbt is told the name in any case, so a project that names none can have its own.
        profile=str(settings.get("profile") or settings["name"]),
        dbt=named.dbt if named else None,
        commit=fetched.commit if fetched else None,
    )


def _what_to_give(folder: Path | str | None) -> str:
    """Return the advice for a folder that is not there; it may have been meant as the name of a project."""
    names = list(workspace().places.projects)
    if not names:
        return "Give the folder of a dbt project with --project-dir."
    from infrastructure.yaml_file import all_of, meant

    return f"The projects of this workspace are {all_of(names)}{meant(str(folder), names)}."


def _shown(error: Exception) -> str:
    return "\n  ".join(lines_of(str(error), 12, 200))
