"""What a run would do, explained."""

from __future__ import annotations

from typing import Any

import pytest

from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.manifest_file import manifest_of
from flows.pipelines.plan import action_of, plan_of


def shop() -> Manifest:
    def node(name: str, *parents: str, kind: str = "model", **config: Any) -> dict[str, Any]:
        return {
            "name": name,
            "resource_type": kind,
            "fqn": ["shop", "marts" if name in ("orders", "customers") else "staging", name],
            "depends_on": {"nodes": list(parents)},
            "config": {"materialized": "view"} | config,
            "tags": ["daily"] if name == "orders" else [],
            "original_file_path": f"models/{name}.sql",
        }

    entries = {
        "seed.raw": node("raw", kind="seed", materialized="seed"),
        "model.stg": node("stg", "seed.raw"),
        "model.orders": node("orders", "model.stg", materialized="incremental"),
        "model.customers": node("customers", "model.orders", materialized="table"),
        "test.unique": node("unique_orders_id", "model.orders", kind="test", materialized="test"),
        "test.warn": node("warn_orders_id", "model.orders", kind="test", materialized="test", severity="WARN"),
    }
    unit = node("adds_up", "model.customers", kind="unit_test")
    return manifest_of({"nodes": entries, "unit_tests": {"unit_test.adds_up": unit}})


def planned(*chosen: str, select: str | None = None, selector: str | None = None, full_refresh: bool = False) -> Any:
    graph = shop()
    return plan_of(graph, chosen or list(graph.nodes), select, selector, full_refresh)


def test_steps_follow_the_dag_and_nodes_of_one_step_do_not_wait_for_each_other() -> None:
    steps = {node.name: node.step for node in planned()}
    assert (steps["raw"], steps["stg"], steps["orders"], steps["customers"]) == (1, 2, 3, 4) or (
        steps["raw"] < steps["stg"] < steps["orders"] < steps["customers"]
    )
    assert steps["unique_orders_id"] > steps["orders"]
    assert [node.step for node in planned()] == sorted(node.step for node in planned())


def test_models_that_depend_on_each_other_are_of_one_step() -> None:
    def model(name: str, parent: str) -> dict[str, Any]:
        return {"name": name, "resource_type": "model", "fqn": [name], "depends_on": {"nodes": [parent]}}

    looped = manifest_of({"nodes": {"a": model("a", "b"), "b": model("b", "a")}})
    assert sorted(node.step for node in plan_of(looped, ["a", "b"], None, None, False)) == [1, 1]


def test_a_unit_test_comes_before_its_model_as_dbt_build_runs_it() -> None:
    steps = {node.name: node.step for node in planned()}
    assert steps["adds_up"] < steps["customers"]


def test_what_is_not_selected_is_no_step() -> None:
    assert {node.name: node.step for node in planned("model.customers", "seed.raw")} == {"raw": 1, "customers": 2}


@pytest.mark.parametrize(
    ("name", "incremental_from_nothing", "usual"),
    [
        ("seed.raw", "drop and load the file", "load the file"),
        ("model.stg", "replace the view", "replace the view"),
        ("model.orders", "rebuild from scratch", "add new rows"),
        ("model.customers", "rebuild the table", "rebuild the table"),
        ("test.warn", "test; a failure is a warning", "test; a failure is a warning"),
        ("test.unique", "test; a failure stops what is downstream", "test; a failure stops what is downstream"),
    ],
)
def test_an_action_says_what_dbt_does(name: str, incremental_from_nothing: str, usual: str) -> None:
    node = shop().nodes[name]
    assert (action_of(node, True), action_of(node, False)) == (incremental_from_nothing, usual)


@pytest.mark.parametrize(
    ("select", "reasons"),
    [
        (None, {"stg": "everything is selected"}),
        ("orders", {"orders": "selected by name", "unique_orders_id": "tests orders"}),
        ("+orders", {"orders": "selected by name", "raw": "upstream of orders", "stg": "upstream of orders"}),
        ("stg+", {"customers": "downstream of stg", "stg": "selected by name"}),
        ("tag:daily+", {"orders": "matches tag:daily", "customers": "downstream of tag:daily"}),
        ("path:models/stg.sql", {"stg": "matches path:models/stg.sql"}),
        ("shop.marts", {"orders": "matches shop.marts"}),
        ("resource_type:seed", {"raw": "matches resource_type:seed"}),
    ],
)
def test_a_reason_says_why_a_node_is_in_the_run(select: str | None, reasons: dict[str, str]) -> None:
    found = {node.name: node.reason for node in planned(select=select)}
    assert {name: found[name] for name in reasons} == reasons


def test_a_named_set_is_the_reason() -> None:
    assert {node.reason for node in planned(selector="nightly")} == {"in the selector nightly"}
