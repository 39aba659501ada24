"""Fingerprints of a project's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.engine.context.project_files import look_ups_of, read_project_files, variables_by_package


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name, text in {
        "dbt_project.yml": "name: shop\nvars: {day: 1}\n",
        "models/a.sql": "select '{{ env_var('REGION') }}'",
        "models/deep/a.yml": "models: []",
        "seeds/b.csv": "id\n1\n",
        "dbt_packages/more/dbt_project.yml": "name: more\nvars: {more: 2}\n",
        "dbt_packages/more/macros/c.sql": "{% macro c() %}{{ env_var(\"OTHER\", 'x') }}{% endmacro %}",
        "target/manifest.json": "{}",
        "notes/of_mine.md": "nothing of dbt's",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    "name", ["models/a.sql", "models/deep/a.yml", "seeds/b.csv", "dbt_packages/more/macros/c.sql", "dbt_project.yml"]
)
def test_any_file_that_dbt_reads_counts_by_its_content(project: Path, name: str) -> None:
    before = read_project_files(project)
    path = project / name
    text = path.read_text()
    path.write_text(text + " ")
    assert read_project_files(project).digest != before.digest
    path.write_text(text)
    assert read_project_files(project) == before


def test_files_that_come_go_or_move_count(project: Path) -> None:
    before = read_project_files(project).digest
    (project / "models" / "a.sql").rename(project / "models" / "b.sql")
    moved = read_project_files(project).digest
    (project / "models" / "b.sql").unlink()
    assert len({before, moved, read_project_files(project).digest}) == 3


def test_what_dbt_does_not_read_or_writes_itself_does_not_count(project: Path) -> None:
    before = read_project_files(project)
    (project / "target" / "manifest.json").write_text("other")
    (project / "notes" / "of_mine.md").write_text("other")
    assert read_project_files(project) == before


def test_a_copy_elsewhere_has_the_same_fingerprint(project: Path, tmp_path: Path) -> None:
    before = read_project_files(project).digest
    assert read_project_files(project.rename(tmp_path / "elsewhere")).digest == before


def test_the_variables_that_are_looked_up_are_named(project: Path) -> None:
    found = read_project_files(project)
    assert found.environment_names == ("OTHER", "REGION")
    assert found.is_provable


@pytest.mark.parametrize(
    ("name", "text"),
    [("models/a.sql", "{{ env_var(name) }}"), ("dbt_project.yml", "name: shop\nmodel-paths: [\"{{ env_var('A') }}\"]")],
)
def test_what_can_be_steered_from_outside_proves_nothing(project: Path, name: str, text: str) -> None:
    (project / name).write_text(text)
    assert not read_project_files(project).is_provable


def test_variables_are_those_of_the_project_and_its_packages(project: Path) -> None:
    assert variables_by_package(project) == {"shop": {"day": 1}, "more": {"more": 2}}


def test_projects_that_link_to_each_other_are_walked_once(project: Path) -> None:
    """Two `integration_tests*` projects that each name `local: ../` have 2^40 paths."""
    for name in ("integration_tests", "integration_tests_2", "integration_tests_3"):
        packages = project / name / "dbt_packages"
        packages.mkdir(parents=True)
        (project / name / "dbt_project.yml").write_text(f"name: {name}\n")
        (packages / "shop").symlink_to(project, target_is_directory=True)
    inner = project / "integration_tests"
    before = read_project_files(inner)
    names = [Path(name).relative_to(inner).as_posix() for name in before.digests]
    assert "dbt_packages/shop/models/a.sql" in names
    found = {(inner / name).resolve() for name in names}
    assert len(names) <= len(found) + 1, "its own dbt_project.yml is found by its link, too"
    assert look_ups_of(inner).names == {"REGION", "OTHER"}
    (project / "models" / "a.sql").write_text("select 2")
    assert read_project_files(inner).digest != before.digest
