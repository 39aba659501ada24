"""Read and check tributary.yml, the file that marks a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from infrastructure.settings_file import read_settings
from infrastructure.workspace.places import NamedProject, Places
from infrastructure.yaml_file import meant

_Path = Annotated[str, StringConstraints(min_length=1)]
# A name has to be told from a folder.
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]

_Entry = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProjectEntry(_File):
    """One of several dbt projects: a folder, or a git repository."""

    folder: _Path | None = Field(
        default=None, description="The project's folder, from the folder of this file; with `git`, in the repository."
    )
    git: _Path | None = Field(default=None, description="The address of a git repository: https, ssh, or a path.")
    ref: _Path | None = Field(
        default=None, description="A branch, tag or commit of the repository; default: its main branch."
    )
    token_env: _Name | None = Field(
        default=None, description="The variable that holds a token for an https address; the token is written nowhere."
    )
    credentials_block: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")] | None = Field(
        default=None,
        description="The Prefect block with a token for an https address, as TYPE/NAME: secret/finance, "
        "github-credentials/ours; read by each run.",
    )
    dbt: _Path | None = Field(
        default=None,
        description="The dbt of this project, before that of the target: a program, a folder, a name on the PATH.",
    )

    @model_validator(mode="after")
    def _is_somewhere(self) -> ProjectEntry:
        if not self.folder and not self.git:
            raise ValueError("needs a `folder`, a `git`, or both")
        if not self.git and (self.ref or self.token_env or self.credentials_block):
            raise ValueError("`ref`, `token_env` and `credentials_block` have no effect without `git`")
        if self.token_env and self.credentials_block:
            raise ValueError("signs in with `token_env` and `credentials_block`; keep one of them")
        return self


class WorkspaceFile(_File):
    """The content of tributary.yml."""

    project: _Path = Field(default=Places.project, description="The folder of the dbt project, where there is one.")
    projects: dict[_Name, ProjectEntry] = Field(
        default_factory=dict, description="Several dbt projects by name; commands take `--project NAME`."
    )
    default_project: _Name | None = Field(default=None, description="The one of `projects` where none is named.")
    sinks: dict[_Name, _Entry] = Field(
        default_factory=dict, description="Sinks of your own for the events of runs: a function as module:function."
    )
    targets: _Path = Field(default=Places.targets, description="The environments.")
    schedules: _Path = Field(default=Places.schedules, description="What runs where and when.")
    routes: _Path = Field(default=Places.routes, description="Which alerts go where.")
    health: _Path = Field(default=Places.health, description="The thresholds of health checks.")
    audit: _Path = Field(default=Places.audit, description="The settings of the audit.")
    refresh: _Path = Field(default=Places.refresh, description="The settings of a full refresh.")

    @model_validator(mode="after")
    def _names_its_projects_once(self) -> WorkspaceFile:
        if self.projects and "project" in self.model_fields_set:
            raise ValueError("`project` is for one project: write it as one of `projects`, or leave those out")
        if self.default_project and self.default_project not in self.projects:
            names = list(self.projects)
            raise ValueError(
                f"there is no project {self.default_project!r} for `default_project`"
                f"{meant(self.default_project, names) or '; there is ' + (', '.join(names) or 'none')}"
            )
        return self


def read_places(path: Path) -> Places:
    """Read a tributary.yml.

    Raises:
        ConfigError: it can't be read, or lists every mistake in it with its line.
    """
    found = read_settings(path, WorkspaceFile)
    projects = {name: NamedProject(name, **entry.model_dump()) for name, entry in found.projects.items()}
    return Places(**found.model_dump(exclude={"projects"}), projects=projects)
