"""What a node is made from: every part that can change has a fingerprint of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from flows.engine.artifacts.fingerprints import Inputs, Values
from flows.engine.artifacts.manifest_fingerprints import inputs_of

VALUES = Values("shop", {}, {"shop": {"day": 1, "unused": 1}}, {"REGION": "north"}, {"/shop/seeds/big.csv": "aaa"})


def macro(name: str, text: str, *needs: str, package: str = "shop") -> dict[str, Any]:
    return {
        "name": name,
        "package_name": package,
        "macro_sql": f"{{% macro {name}() %}}{text}{{% endmacro %}}",
        "depends_on": {"macros": [f"macro.{need}" for need in needs]},
    }


def node(name: str, code: str = "select 1 as id", kind: str = "model", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "resource_type": kind,
        "package_name": "shop",
        "fqn": ["shop", name],
        "database": "DB",
        "schema": "Main",
        "alias": name,
        "relation_name": f'"DB"."Main"."{name}"',
        "raw_code": code,
        "config": {"materialized": "table", **more.pop("config", {})},
        "depends_on": {"nodes": more.pop("nodes", []), "macros": [f"macro.{key}" for key in more.pop("macros", [])]},
        "columns": {},
        **more,
    }


def manifest() -> dict[str, Any]:
    macros = [
        macro("price", "{{ rounded() }} {{ var('day') }}", "shop.rounded"),
        macro("rounded", "1"),
        macro("region", "{{ env_var('REGION') }}"),
        macro("audit", "insert"),
        macro("materialization_own_default", "1"),
        macro("statement", "1", package="dbt"),
        macro("duckdb__statement", "mine"),
    ]
    hook = {"sql": "{{ audit() }}"}
    nodes = {
        "seed.big": node(
            "big",
            "",
            "seed",
            root_path="/shop",
            original_file_path="seeds/big.csv",
            checksum={"name": "path", "checksum": "seeds/big.csv"},
        ),
        "model.inside": node(
            "inside", "{{ price() }}", config={"materialized": "ephemeral"}, macros=["shop.price"], nodes=["seed.big"]
        ),
        "model.orders": node(
            "orders", "select id from {{ ref('inside') }}", nodes=["model.inside", "source.raw.events"]
        ),
        "model.plain": node("plain", macros=["dbt.statement"], config={"post-hook": [hook]}),
        "model.regional": node("regional", "{{ region() }}", macros=["shop.region"], nodes=["model.plain"]),
        "operation.start": node("start", "create schema x", "operation"),
        "test.orders": node(
            "unique_orders", "{{ test_x() }}", "test", nodes=["model.orders"], test_metadata={"kwargs": {"a": "now()"}}
        ),
    }
    return {
        "metadata": {"adapter_type": "duckdb"},
        "nodes": nodes,
        "unit_tests": {
            "unit_test.adds": {**node("adds", kind="unit_test", nodes=["model.plain"]), "expect": {"rows": []}}
        },
        "sources": {
            "source.raw.events": {"source_name": "raw", "name": "events", "relation_name": '"DB"."raw"."events"'}
        },
        "macros": {f"macro.{entry['package_name']}.{entry['name']}": entry for entry in macros},
    }


def read(change: Callable[[dict[str, Any]], object] | None = None, values: Values = VALUES) -> Inputs:
    document = copy.deepcopy(manifest())
    if change:
        change(document)
    return inputs_of(document, values)


def differing(changed: Inputs) -> dict[str, list[str]]:
    """Return which parts of which nodes are not what they were."""
    found: dict[str, list[str]] = {}
    for unique_id, one in read().nodes.items():
        other = changed.nodes[unique_id].parts
        parts = [name for name in one.parts.__slots__ if getattr(one.parts, name) != getattr(other, name)]
        if parts:
            found[unique_id.partition(".")[2]] = parts
    return found


def set_at(*path: Any) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        *keys, last, value = path
        place: Any = document
        for key in keys:
            place = place[key]
        place[last] = value

    return change


def in_macro(name: str) -> Callable[[dict[str, Any]], object]:
    return set_at("macros", f"macro.shop.{name}", "macro_sql", "{% macro other() %}2{% endmacro %}")


def test_parents_are_seen_through_ephemeral_models_and_come_first() -> None:
    inputs = read()
    assert inputs.nodes["model.orders"].parents == ("source.raw.events", "seed.big")
    assert "model.inside" not in inputs.nodes
    assert "operation.start" not in inputs.nodes
    order = list(inputs.nodes)
    assert order.index("model.orders") < order.index("test.orders")
    assert inputs.nodes["model.orders"].place == ("DB", "Main", "orders")
    assert inputs.nodes["unit_test.adds"].place == ()


def test_models_that_stand_on_each_other_are_read_once_and_left_to_dbt_to_refuse() -> None:
    def go_around(document: dict[str, Any]) -> None:
        document["nodes"]["model.inside"]["depends_on"]["nodes"] = ["model.inside", "model.orders"]
        document["nodes"]["model.plain"]["depends_on"]["nodes"] = ["model.regional"]

    assert read(go_around).nodes.keys() == read().nodes.keys()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_at("nodes", "model.plain", "raw_code", "select 2"), {"plain": ["code"]}),
        (set_at("nodes", "model.inside", "raw_code", "{{ price() }} + 1"), {"orders": ["code"]}),
        (in_macro("rounded"), {"orders": ["macros"]}),
        (in_macro("audit"), {"plain": ["macros"]}),
        (set_at("nodes", "model.plain", "config", "post-hook", []), {"plain": ["macros", "config"]}),
        (set_at("nodes", "model.plain", "config", "tags", ["nightly"]), {}),
        (set_at("nodes", "model.plain", "description", "Said better"), {}),
        (
            set_at("nodes", "model.plain", "columns", {"id": {"name": "id", "description": "The key"}}),
            {"plain": ["config"]},
        ),
        (
            set_at(
                "nodes", "model.plain", "depends_on", "macros", ["macro.dbt.statement", "macro.shop.duckdb__statement"]
            ),
            {},
        ),
        (set_at("sources", "source.raw.events", "relation_name", "elsewhere"), {"orders": ["reads"]}),
        (set_at("unit_tests", "unit_test.adds", "expect", {"rows": [1]}), {"adds": ["code"]}),
        (
            set_at("nodes", "model.plain", "relation_name", "elsewhere"),
            {"plain": ["relation"], "regional": ["reads"], "adds": ["reads"]},
        ),
    ],
)
def test_a_change_shows_in_the_nodes_that_it_concerns_and_in_no_other(
    change: Callable[[dict[str, Any]], object], expected: dict[str, list[str]]
) -> None:
    assert differing(read(change)) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (replace(VALUES, cli={"day": 2}), {"orders": ["vars"]}),
        (replace(VALUES, by_package={"shop": {"day": 2, "unused": 1}}), {"orders": ["vars"]}),
        (replace(VALUES, by_package={"shop": {"day": 1, "unused": 2}}), {}),
        (replace(VALUES, by_package={"shop": {"day": 1, "unused": 1, "shop": {"day": 3}}}), {"orders": ["vars"]}),
        (replace(VALUES, environment={"REGION": "south"}), {"regional": ["env"]}),
        (replace(VALUES, environment={"REGION": "north", "OTHER": "1"}), {}),
        (replace(VALUES, files={"/shop/seeds/big.csv": "bbb"}), {"big": ["code"]}),
    ],
)
def test_a_value_shows_in_the_nodes_that_look_it_up(values: Values, expected: dict[str, list[str]]) -> None:
    assert differing(read(values=values)) == expected


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (in_macro("materialization_own_default"), "macros that dbt itself calls"),
        (in_macro("duckdb__statement"), "macros that dbt itself calls"),
        (set_at("nodes", "operation.start", "raw_code", "drop schema x"), "the on-run hooks"),
    ],
)
def test_what_no_node_names_concerns_every_node(change: Callable[[dict[str, Any]], object], name: str) -> None:
    before, now = read().settings, read(change).settings
    assert [key for key in now if before[key] != now[key]] == [name]
    assert differing(read(change)) == {}


def test_no_value_of_the_environment_can_be_read_from_what_is_kept() -> None:
    values = replace(VALUES, environment={"REGION": "a-secret-place"})
    assert b"a-secret-place" not in orjson.dumps(read(values=values))


def test_what_is_kept_comes_back_the_same() -> None:
    inputs = read()
    assert Inputs.from_document(orjson.loads(orjson.dumps(inputs))) == inputs


def test_a_test_whose_arguments_read_the_clock_can_come_out_otherwise() -> None:
    assert read().nodes["test.orders"].unseen == "reads the clock (now)"


def test_a_project_can_know_better() -> None:
    always = set_at("nodes", "model.plain", "config", "meta", {"rebuild": "always"})
    assert read(always).nodes["model.plain"].unseen == "is to be built always (meta.rebuild)"
    never = set_at("nodes", "test.orders", "config", "meta", {"rebuild": "when_changed"})
    assert read(never).nodes["test.orders"].unseen == ""
