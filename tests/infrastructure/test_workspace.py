"""Where a workspace is found, where its files are, and what a command of its own is given."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from infrastructure.commands import given_workspace
from infrastructure.console import EntryGroup
from infrastructure.errors import ConfigError
from infrastructure.targets.target_file import default_target, load_targets
from infrastructure.workspace import EXAMPLE, ROOT, NamedProject, Places, Workspace, shown, workspace
from infrastructure.workspace.file import WorkspaceFile


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return the folder of a workspace whose project is in a folder beside it."""
    folder = tmp_path / "ours"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "tributary.yml").write_text("project: ../shop\nroutes: alerts/routes.yml\n")
    return folder


def test_the_variable_comes_before_the_folders_upwards_and_these_before_the_example(own: Path, tmp_path: Path) -> None:
    named = tmp_path / "named"
    named.mkdir()
    (named / "tributary.yml").write_text("project: .\n")

    assert workspace({"TRIBUTARY_WORKSPACE": str(named)}, own / "deep").folder == named
    assert workspace({}, own / "deep" / "er").folder == own
    assert workspace({}, tmp_path) == EXAMPLE
    assert workspace({"TRIBUTARY_WORKSPACE": str(ROOT)}, own) == EXAMPLE


def test_files_are_in_the_workspace_and_what_it_lacks_has_the_defaults(own: Path) -> None:
    found = workspace({}, own)

    assert (found.targets, found.schedules) == (own / "targets.yml", own / "schedules.yml")
    assert found.project == own.parent / "shop"
    assert found.routes == own / "alerts" / "routes.yml", "a file that is named is not replaced by the example's"
    assert [found.settings_of(name) for name in ("health", "audit", "refresh")] == [None, None, None]
    (own / "audit.yml").write_text("months: 3\n")
    assert found.settings_of("audit") == own / "audit.yml"


def test_the_example_has_its_files_beside_the_code() -> None:
    files = [EXAMPLE.project, EXAMPLE.targets, EXAMPLE.schedules, EXAMPLE.routes, EXAMPLE.settings_of("health")]

    assert all(file and file.exists() for file in files)
    assert shown(EXAMPLE.targets) == "infrastructure/targets.yml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("project: .\ntarget: x.yml\n", "line 2, target: no such setting; did you mean `targets`?"),
        ("project: [a]\n", "line 1, project: expected text"),
        ("health: 3\nproject: ''\n", "line 1, health: expected text, found 3"),
        ("health: 3\nproject: ''\n", "line 2, project: expected at least 1 character"),
        ("projects: {a: {dbt: x}}\n", "line 1, projects.a: needs a `folder`, a `git`, or both"),
        (
            "projects: {a: {folder: x, ref: v1}}\n",
            "`credentials_block` have no effect without `git`",
        ),
        ("projects: {a: {folder: x, tag: v1}}\n", "projects.a.tag: no such setting"),
        ("project: .\nprojects: {a: {folder: x}}\n", "`project` is for one project"),
        ("projects: {shop: {folder: x}}\ndefault_project: shp\n", "did you mean `shop`?"),
        ("project: .\nproject: b\n", "given twice, on lines 1 and 2"),
        ("- x\n", "must contain settings as `name: value`"),
    ],
)
def test_a_mistake_in_the_marker_is_named_with_file_and_line(own: Path, text: str, said: str) -> None:
    (own / "tributary.yml").write_text(text)

    with pytest.raises(ConfigError) as caught:
        _ = Workspace(own).places
    assert said in str(caught.value)
    assert str(own / "tributary.yml") in str(caught.value)


def test_the_file_has_every_setting() -> None:
    assert set(WorkspaceFile.model_fields) == {field.name for field in fields(Places)}


@pytest.mark.parametrize(("name", "why"), [("deep", "it has no tributary.yml"), ("none", "the folder does not exist")])
def test_a_named_folder_that_is_no_workspace_is_refused(own: Path, name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        workspace({"TRIBUTARY_WORKSPACE": str(own / name)})


def test_targets_of_the_workspace_are_read_and_its_default_is_the_default(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBUTARY_WORKSPACE", str(own))
    assert default_target() == "dev"
    (own / "targets.yml").write_text(
        "default: lake\ntargets:\n  lake: {warehouse: duckdb, path: lake.duckdb, schema: analytics}\n"
    )
    assert default_target() == "lake"
    assert load_targets().names == ["lake"]
    with pytest.raises(ConfigError, match=rf"no target 'sea' in {own}/targets.yml"):
        load_targets().find("sea")


def test_the_option_holds_for_one_command_wherever_it_stands(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIBUTARY_WORKSPACE", raising=False)

    @click.group(cls=EntryGroup)
    def main() -> None: ...

    @main.command()
    def show() -> None:
        click.echo(f"{workspace().folder} {' '.join(given_workspace())}")

    for line in (["--workspace", str(own), "show"], ["show", "--workspace", str(own)]):
        assert CliRunner().invoke(main, line).output.startswith(f"{own} --workspace ")
    assert CliRunner().invoke(main, ["show"]).output == f"{ROOT} \n"
    refused = CliRunner().invoke(main, ["show", "--workspace", str(own / "deep")])
    assert (refused.exit_code, "it has no tributary.yml" in refused.output) == (2, True)


def test_one_of_several_projects_is_named_or_meant(own: Path) -> None:
    (own / "tributary.yml").write_text("projects: {shop: {folder: ../shop}, finance: {git: ../finance, dbt: dbt2}}\n")
    found = Workspace(own)

    assert found.named_project("shop") == NamedProject("shop", folder="../shop")
    assert found.named_project("../shop") is None, "a folder is no name"
    with pytest.raises(ConfigError, match=r"several dbt projects: shop, finance\. Name one with --project"):
        found.named_project(None)
    (own / "tributary.yml").write_text("projects: {shop: {folder: ../shop}}\n")
    assert Workspace(own).named_project(None) == NamedProject("shop", folder="../shop"), "it is the only one"
