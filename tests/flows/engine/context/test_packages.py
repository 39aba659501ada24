"""Packages of a dbt project: installed where they are missing, once, and never at the cost of what is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from flows.engine.context import packages
from flows.engine.context.packages import ensure_packages
from flows.engine.context.project import project_to_run
from flows.engine.context.reporting import reporting_to
from infrastructure.errors import ConfigError, UpstreamUnavailable
from tests.support.git_server import git_server
from tests.support.notes import Notes
from tests.support.package_hub import package_hub


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
    with pytest.raises(ConfigError, match="needs 1 package and none is installed"):
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


@pytest.mark.slow
def test_packages_come_from_the_hub_and_from_a_private_repository_and_without_a_network_they_stay(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    monkeypatch.setenv("DBT_ENV_SECRET_GIT_TOKEN", "geheim-4711")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for arguments in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-qm", "one"), ("tag", "v1")):
        subprocess.run(["git", *arguments], cwd=tmp_path / "more", check=True)
    with package_hub("acme/answers", "1.0.0", "1.1.0", "2.0.0") as hub, git_server(tmp_path, "a:geheim-4711") as git:
        private = git.address.replace("//", "//a:{{ env_var('DBT_ENV_SECRET_GIT_TOKEN') }}@") + "/more/.git"
        asked = "packages:\n  - package: acme/answers\n    version: ['>=1.0.0', '<2.0.0']\n"
        (project / "packages.yml").write_text(f'{asked}  - git: "{private}"\n    revision: v1\n')
        monkeypatch.setenv("DBT_PACKAGE_HUB_URL", hub.address)
        with reporting_to(notes):
            ensure_packages(project)
        hub.asked.clear()
        ensure_packages(project)
        assert hub.asked == [], "what is there is not asked for again"

    assert installed(project) == ["answers", "more"]
    assert "version: 1.1.0" in (project / "dbt_packages" / "answers" / "dbt_project.yml").read_text()
    assert "Installed 2 packages with dbt deps" in " ".join(notes.said)
    assert "geheim-4711" not in " ".join(notes.said) + (project / "package-lock.yml").read_text()

    # The servers are gone: nothing is missing, so that nothing is asked for, and no other answer keeps a run back.
    ensure_packages(project)
    (project / "packages.yml").write_text(asked.replace("1.0.0", "1.1.0"))
    with reporting_to(notes):
        ensure_packages(project)
    assert installed(project) == ["answers", "more"]
    assert "The packages that are installed are used, though others are asked for." in notes.said[-1]
    shutil.rmtree(project / "dbt_packages")
    with pytest.raises(UpstreamUnavailable, match="can't install the packages of") as away:
        ensure_packages(project)
    assert "geheim-4711" not in str(away.value)
