"""What a real dbt selects as critical, against the one rule of what is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.engine.artifacts.manifest_file import CRITICAL_WORDS
from flows.engine.context.command import DbtCommand
from flows.engine.context.project import read_project
from flows.engine.process.listing import list_nodes
from flows.pipelines.selections import CRITICAL_NODES, built_and_critical
from infrastructure.profiles import Profile

# Of a test: its configuration by its name. dbt can't select what is neither a word for yes nor one for no.
_CRITICAL = {
    **{f"says_{number}": {"meta": {"critical": word}} for number, word in enumerate((*CRITICAL_WORDS, True))},
    "tagged": {"tags": ["critical"]},
}
_EMPTY = ("--indirect-selection", "empty")
_OTHERS = {"says_no": {"meta": {"critical": "no"}}, "says_false": {"meta": {"critical": False}}, "says_nothing": {}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a project with a critical model, and tests that are marked in every way."""
    place = tmp_path_factory.mktemp("marks")
    (place / "models").mkdir()
    (place / "dbt_project.yml").write_text("name: marks\nprofile: marks\n")
    (place / "models" / "orders.sql").write_text("select 1 as id")
    tests = [{"not_null": {"name": name, "config": config}} for name, config in (_CRITICAL | _OTHERS).items()]
    columns = [{"name": "id", "data_tests": tests}]
    model = {"name": "orders", "config": {"meta": {"critical": True}, "tags": ["critical"]}, "columns": columns}
    (place / "models" / "models.yml").write_text(yaml.safe_dump({"models": [model]}))
    return place


def _selected(place: Path, command: DbtCommand) -> set[str]:
    output = {"type": "duckdb", "path": str(place / "dev.duckdb"), "schema": "main"}
    found, graph = list_nodes(command, read_project(str(place)), Profile("marks", "marks", output, {}))
    assert {node.name for node in graph.nodes.values() if node.is_critical} == {"orders", *_CRITICAL}
    return {graph.nodes[unique_id].name for unique_id in found}


def test_the_tests_that_are_built_with_the_models_are_those_that_the_rule_calls_critical(place: Path) -> None:
    assert _selected(place, DbtCommand("ls", built_and_critical([]), flags=_EMPTY)) == {"orders", *_CRITICAL}


def test_a_critical_model_keeps_the_tests_of_its_own_that_are_not_critical(place: Path) -> None:
    assert _selected(place, DbtCommand("ls", exclude=CRITICAL_NODES, flags=_EMPTY)) == set(_OTHERS)
