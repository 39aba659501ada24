"""Questions to dbt beside its runs, several at once."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from flows.engine.artifacts.manifest_file import MANIFEST
from flows.engine.context.command import DbtCommand
from flows.engine.context.events import DbtEvent
from flows.engine.context.project import read_project
from flows.engine.process.door import Dbt
from flows.engine.process.listing import list_nodes
from infrastructure.profiles import Profile


def test_a_question_that_is_asked_while_another_is_answered_gets_its_own_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They shared a folder: one read the manifest that the other had written, and nodes were not run."""
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    models = tmp_path / "project" / "models"
    models.mkdir(parents=True)
    (models.parent / "dbt_project.yml").write_text(
        "name: asked\nversion: '1.0'\nflags: {send_anonymous_usage_stats: false}\n"
    )
    for name in "ab":
        (models / f"{name}.sql").write_text("{{ config(enabled=var('only') == '" + name + "') }} select 1 as id")
    output = {"type": "duckdb", "path": str(tmp_path / "w.duckdb"), "schema": "main", "threads": 1}
    project, profile = read_project(models.parent), Profile("dev", "asked", output, {})
    inner: list[str] = []

    def take(event: DbtEvent) -> None:
        if event.name == "PrintEvent" or event.name.startswith("ListCmdOut"):
            # The outer question has written its manifest, and is not over.
            found, graph = list_nodes(DbtCommand("build", vars={"only": "b"}), project, profile)
            inner.extend([*found, *graph.nodes])

    manifest = Dbt(project, profile).ask(DbtCommand("ls", vars={"only": "a"}), take, artifact=MANIFEST)
    assert manifest is not None
    assert list(orjson.loads(manifest)["nodes"]) == ["model.asked.a"]
    assert inner == ["model.asked.b", "model.asked.b"]
    plan = tmp_path / "state" / "asked" / "dev" / "plan"
    assert sorted(path.name for path in plan.iterdir()) == ["profiles", "target"], "each takes its folder away"
    assert [path.name for path in (plan / "target").iterdir()] == ["partial_parse.msgpack"], "the next is quicker"
