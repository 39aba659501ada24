"""A plan as a person sees it first: a line for each folder."""

from __future__ import annotations

from flows.cli.plan import by_folder
from flows.pipelines.plan import PlannedNode


def planned(path: str, resource_type: str, step: int = 1) -> PlannedNode:
    return PlannedNode(f"{resource_type}.{path}", path, resource_type, "", "", step, path)


def test_a_folder_says_how_much_of_each_kind_would_run_models_before_their_tests_and_how_much_is_reused() -> None:
    nodes = [
        planned("models/gold/_gold__models.yml", "unit_test"),
        planned("models/gold/_gold__models.yml", "test"),
        planned("models/gold/orders.sql", "model"),
        planned("models/gold/_gold__models.yml", "test"),
        planned("models/gold/customers.sql", "model", step=0),
        planned("seeds/colours.csv", "seed", step=0),
        planned("made_up", "snapshot"),
    ]
    assert by_folder(nodes) == [
        (".", "1 snapshot", ""),
        ("models/gold", "1 model, 2 tests, 1 unit test", "1"),
        ("seeds", "", "1"),
    ]
