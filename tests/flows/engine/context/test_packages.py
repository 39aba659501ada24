"""Packages of a dbt project: installed where they are missing, once, and never at the cost of what is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.engine.context import packages
from flows.engine.context.packages import ensure_packages
from flows.engine.context.project import project_to_run
from infrastructure.errors import ConfigError, UpstreamUnavailable


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with a package that is a folder beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(packages.NO_DEPS_VARIABLE, raising=False)
    for name in ("shop", "tools", "more"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dbt_project.yml").write_text(f"name: {name}\nversion: '1.0'\nprofile: shop\n")
    wants(tmp_path / "shop", "tools")
    return tmp_path / "shop"


def wants(project: Path, *names: str) -> None:
    (project / "packages.yml").write_text("packages:\n" + "".join(f"  - local: ../{name}\n" for name in names))


def installed(project: Path) -> list[str]:
    return sorted(path.name for path in (project / "dbt_packages").iterdir())


def test_what_is_missing_is_installed_once_and_again_when_something_else_is_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project_to_run(project).name == "shop"
    assert installed(project) == ["tools"]

    def fail(*_: object) -> UpstreamUnavailable:
        # As dbt leaves it: what was there is removed first.
        (project / "dbt_packages").mkdir()
        return UpstreamUnavailable("The hub did not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(packages, "run_deps", fail)
        ensure_packages(project)
        wants(project, "tools", "more")
        ensure_packages(project)
        assert installed(project) == ["tools"], "what is there is used when others can't be had"
        assert [path.name for path in project.glob("dbt_packages*")] == ["dbt_packages"]
    ensure_packages(project)
    assert installed(project) == ["more", "tools"]


def test_nothing_is_installed_when_told_so_or_when_it_was_done_by_hand(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(packages.NO_DEPS_VARIABLE, "1")
    with pytest.raises(ConfigError, match="needs 1 packages and none is installed"):
        project_to_run(project)

    monkeypatch.delenv(packages.NO_DEPS_VARIABLE)
    (project / "dbt_packages" / "by_hand").mkdir(parents=True)
    project_to_run(project)
    assert installed(project) == ["by_hand"]


def test_why_packages_can_not_be_had_is_said_with_the_command_to_look(project: Path) -> None:
    shutil.rmtree(project.parent / "tools")

    with pytest.raises(ConfigError, match=f"can't install the packages of {project}. To see more: uv run dbt deps"):
        ensure_packages(project)


def test_an_installation_that_takes_too_long_is_ended(project: Path) -> None:
    with pytest.raises(UpstreamUnavailable, match="did not end in time"):
        ensure_packages(project, timeout_seconds=0.0)
