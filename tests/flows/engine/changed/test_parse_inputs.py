"""What proves that a project need not be parsed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.engine.changed.parse_inputs import Surroundings, is_narrowed, surroundings_of
from flows.engine.context.command import DbtCommand
from flows.engine.context.project import Project
from infrastructure.profiles import Profile
from infrastructure.targets import key_files


def test_a_key_that_is_given_as_a_file_leaves_the_proof_as_it_is_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: shop\n")
    project = Project(tmp_path, "shop", "shop")

    def taken_down(key: str) -> tuple[str, str]:
        variable = "DBT_ENV_SECRET_DEV_SSLKEY"
        output = {"type": "postgres", "password": "", "sslkey": f"{{{{ env_var('{variable}') }}}}"}
        profile = Profile("dev", "shop", output, {variable: key})
        found = surroundings_of(DbtCommand("build"), project, profile)
        return profile.child_environment()[variable], found.proof

    first_path, first_proof = taken_down("a key")
    # As in another process: the file has another number, and another process' id in its path.
    other_path, other_proof = taken_down("a key that was renewed")
    assert first_path != other_path
    assert first_proof == other_proof != ""
    assert key_files.path_of_key("a key") == first_path


def test_another_line_of_dbt_concerns_every_node_and_another_patch_only_the_parse(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: shop\n")
    project = Project(tmp_path, "shop", "shop")

    def with_dbt(version: str) -> Surroundings:
        program = tmp_path / f"dbt-{version}"
        program.write_text(f"#!/bin/sh\necho dbt-core {version}\n")
        program.chmod(0o755)
        profile = Profile("dev", "shop", {"type": "duckdb", "path": "w.duckdb"}, {}, dbt=str(program))
        return surroundings_of(DbtCommand("build"), project, profile)

    first, patch, minor, major = map(with_dbt, ("1.11.15", "1.11.16", "1.12.6", "2.0.0-alpha.4"))
    assert first.settings == patch.settings
    assert first.proof != patch.proof
    assert [found.settings["the version of dbt"] for found in (patch, minor, major)] == ["1.11", "1.12", "2.0"]


@pytest.mark.parametrize(
    "written", ["{name: some, default: true}", '{"name": "some", "default": true}', "{name: some, default : true}"]
)
def test_a_default_selector_narrows_a_command_however_yaml_writes_it(tmp_path: Path, written: str) -> None:
    project = Project(tmp_path, "shop", "shop")
    assert not is_narrowed(DbtCommand("build"), project)
    (tmp_path / "selectors.yml").write_text(f"selectors: [{written}]")
    assert is_narrowed(DbtCommand("build"), project)
