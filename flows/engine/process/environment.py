"""The environment of a dbt child: what dbt needs, and what the project and the target look up."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flows.engine.context.project_files import look_ups_of
from infrastructure.errors import preview
from infrastructure.passed_on import LookUps, PassedOn, for_dbt
from infrastructure.targets.target_file import secrets_of_others
from infrastructure.workspace import targets_file

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

# dbt's JSON is UTF-8 whatever the locale of a container says.
_FOR_ALL = {"PYTHONUTF8": "1"}


def child_environment(
    folder: Path, profile: Profile, secrets: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of a dbt child: a part of the caller's, and the secrets of one target.

    Args:
        folder: of the dbt project.
        secrets: in place of those of the profile.
        environ: the environment of this process when None.
    """
    passed = _passed_on(profile, look_ups_of(folder), os.environ if environ is None else environ)
    given = profile.child_environment() if secrets is None else secrets
    return {**passed.environment, **_FOR_ALL, **given}


def ahead_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a dbt child that waits for its command."""
    return {**for_dbt(environ, {}, (), LookUps()).environment, **_FOR_ALL}


def kept_back(folder: Path, profile: Profile, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a sentence for what a project looks up and is not given, or may look up without our knowing."""
    look_ups = look_ups_of(folder)
    names = _passed_on(profile, look_ups, os.environ if environ is None else environ).kept_back
    remedy = f"`pass_env` of target {profile.target} in {targets_file()}"
    said: list[str] = []
    if names:
        said.append(
            f"dbt was not given {preview(names)}, which the project looks up: a secret of the orchestrator or of "
            f"another target. If dbt is to have it, name it in {remedy}."
        )
    if look_ups.unknown_in and not profile.pass_env:
        files = preview([os.path.relpath(name, folder) for name in look_ups.unknown_in])
        said.append(
            f"Environment variables that {files} looks up by a name put together at run time do not reach dbt "
            f"unless they are named in {remedy}."
        )
    return said


def _passed_on(profile: Profile, look_ups: LookUps, environ: Mapping[str, str]) -> PassedOn:
    return for_dbt(environ, profile.output, profile.pass_env, look_ups, secrets_of_others(profile.target))
