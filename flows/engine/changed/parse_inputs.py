"""What a parse of a project depends on, taken down before dbt starts: files, variables, environment, connection."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.engine.artifacts.fingerprints import Values, digest_of
from flows.engine.context.command import DbtCommand, flags_in
from flows.engine.context.project import Project
from flows.engine.context.project_files import ProjectFiles, project_settings, read_project_files, variables_by_package
from flows.engine.process.environment import child_environment
from infrastructure.program import find_program
from infrastructure.targets.outputs import SECRET_PREFIX

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

# What the line of dbt's releases is called among the settings; it is kept as it is, so that a person can be told both.
DBT = "the version of dbt"
# Settings of a connection that change how quickly a table is built, and not the table.
_NO_MATTER = frozenset({"threads", "retries", "connect_timeout", "keepalives_idle", "job_retries", "query_tag"})


@dataclass(frozen=True)
class Surroundings:
    """All that decides what a parse comes to.

    Attributes:
        proof: fingerprint of it all; two equal ones need no second parse. Empty where that can't be said.
        settings: fingerprints of what concerns every node, by what a person calls it.
        declared: as `proof`, of what stands in YAML alone, such as sources.
    """

    values: Values
    proof: str
    settings: Mapping[str, str]
    declared: str = ""


def surroundings_of(command: DbtCommand, project: Project, profile: Profile) -> Surroundings:
    """Take down what a command finds, as it is now."""
    files = read_project_files(project.folder)
    # With the text of a key in place of its path, which is another in every process.
    environment = child_environment(project.folder, profile, profile.secrets)
    declared = project_settings(project.folder)
    connection = {key: value for key, value in profile.output.items() if key not in _NO_MATTER}
    settings = {
        "the target's connection": digest_of(profile.target, connection),
        "flags or dispatch in dbt_project.yml": digest_of(declared.get("flags"), declared.get("dispatch")),
    }
    if flags := flags_in(environment, tables_alone=True):
        settings["dbt's flags in the environment"] = digest_of(flags)
    values = Values(project.name, command.vars, variables_by_package(project.folder), environment, files.digests)
    program = find_program(profile.dbt)
    settings[DBT] = program.line
    in_yaml = digest_of({name: digest for name, digest in files.digests.items() if name.endswith((".yml", ".yaml"))})
    proof, declared = (_proof(files, digest, values, settings, program.version) for digest in (files.digest, in_yaml))
    return Surroundings(values, proof, settings, declared)


def is_narrowed(command: DbtCommand, project: Project) -> bool:
    """Say whether a command may run less than the whole project: asked to, or by a default of the project's."""
    selectors = project.folder / "selectors.yml"
    # However YAML lets the key be written; where it is another word, dbt is asked once too often.
    has_default = selectors.exists() and b"default" in selectors.read_bytes()
    asked = command.select or command.exclude or command.selector or command.flags or flags_in(os.environ)
    return bool(asked) or has_default


def _proof(files: ProjectFiles, digest: str, values: Values, settings: Mapping[str, str], dbt: str) -> str:
    if not files.is_provable:
        return ""
    looked_up: dict[str, Any] = {name: values.environment.get(name) for name in files.environment_names}
    # DBT_… variables are flags of dbt, some of which decide what a parse comes to; a password decides nothing.
    flags = {
        name: value
        for name, value in values.environment.items()
        if name.startswith("DBT_") and not name.startswith(SECRET_PREFIX)
    }
    return digest_of(digest, dict(values.cli), looked_up, flags, dict(settings), dbt)
