"""What the tab key offers, as a shell asks for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from flows.__main__ import main


def offered(*words: str) -> list[str]:
    """Return what is offered for the last of the words."""
    shell = ShellComplete(main, {}, "tributary", "_TRIBUTARY_COMPLETE")
    return [str(item.value) for item in shell.get_completions(list(words[:-1]), words[-1]) if item.type == "plain"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "dbt_project.yml").write_text("name: shop\n")
    (folder / "selectors.yml").write_text("selectors: [{name: nightly}, {name: weekly}]\n")
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    return folder


def keep_manifest(folder: Path, *models: str) -> None:
    folder.mkdir(parents=True)
    nodes = {f"model.shop.{name}": {"name": name, "resource_type": "model", "tags": ["marts"]} for name in models}
    nodes["test.shop.fits"] = {"name": "fct_fits", "resource_type": "test", "tags": []}
    sources = {"source.shop.crm.accounts": {"source_name": "crm", "name": "accounts", "tags": []}}
    (folder / "manifest.json").write_text(json.dumps({"nodes": nodes, "sources": sources}))


def test_commands_options_and_targets_are_offered() -> None:
    assert offered("pl") == ["plan"]
    assert "--select" in offered("build", "--sel")
    assert offered("deploy", "ap") == ["apply"]
    assert "dev" in offered("run", "--target", "d")
    assert "prod" in offered("run", "--defer-to", "p")


def test_nodes_tags_and_sources_are_those_of_the_last_run_and_tests_come_where_nothing_else_fits(project: Path) -> None:
    keep_manifest(project.parent / "state" / "shop" / "dev" / "target", "fct_orders", "fct_clicks", "stg_orders")
    there = ["ls", "--project-dir", str(project), "--select"]
    assert offered(*there, "fct_") == ["fct_clicks", "fct_orders"]
    assert offered(*there, "2+fct_o") == ["2+fct_orders"]
    assert offered(*there, "tag:marts,+stg") == ["tag:marts,+stg_orders"]
    assert offered(*there, "source:") == ["source:crm", "source:crm.accounts"]
    assert offered(*there, "tag:") == ["tag:marts"]
    assert offered(*there, "fct_f") == ["fct_fits"]


def test_before_the_first_run_nodes_are_those_that_dbt_itself_has_left(project: Path) -> None:
    there = ["ls", "--project-dir", str(project), "--select"]
    assert offered(*there, "fct_") == []
    keep_manifest(project / "target", "fct_orders")
    assert offered(*there, "fct_o") == ["fct_orders"]


def test_selectors_are_those_of_the_project_and_nothing_is_said_where_there_is_no_project(project: Path) -> None:
    assert offered("run", "--project-dir", str(project), "--selector", "n") == ["nightly"]
    assert offered("run", "--project-dir", str(project / "no"), "--selector", "n") == []
