"""What a tributary.yml says, as the code has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Of this repository.
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class NamedProject:
    """One of several dbt projects of a workspace.

    Attributes:
        folder: from the folder of the workspace, or in the repository.
        git: the address of its repository; None for a folder of this machine.
        ref: a branch, tag or commit; None for the main branch.
        token_env: the variable with a token for the repository.
        credentials_block: the Prefect block with one, as TYPE/NAME.
        dbt: its dbt, which comes before that of the target.
    """

    name: str
    folder: str | None = None
    git: str | None = None
    ref: str | None = None
    token_env: str | None = None
    credentials_block: str | None = None
    dbt: str | None = None


@dataclass(frozen=True)
class Places:
    """The content of tributary.yml: where a workspace keeps what is not in the usual place; paths from its folder.

    Attributes:
        project: the dbt project, where there is one.
        projects: several of them, by name.
        default_project: the one that is meant where none is named.
        sinks: functions that make sinks of a user's own, as module:function, by name.
        targets: the environments.
        schedules: what runs where and when.
        routes: which alerts go where.
        health: the thresholds of health checks.
        audit: the settings of the audit.
        refresh: the settings of a full refresh.
    """

    project: str = "."
    targets: str = "targets.yml"
    schedules: str = "schedules.yml"
    routes: str = "routes.yml"
    health: str = "health.yml"
    audit: str = "audit.yml"
    refresh: str = "refresh.yml"
    projects: Mapping[str, NamedProject] = field(default_factory=dict[str, NamedProject])
    default_project: str | None = None
    sinks: Mapping[str, str] = field(default_factory=dict[str, str])
