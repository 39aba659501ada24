"""Two states of targets side by side: whatever is not the same is named, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from flows.engine.artifacts.manifest_file import manifest_of
from flows.runbook.compare.flow import as_document, compared, table_rows
from flows.runbook.compare.target_state import TableState, TargetState, load, save, versions_of
from flows.runbook.project_tables import ProjectTables
from infrastructure.errors import ConfigError
from infrastructure.profiles import Profile

ORDERS = TableState(2, {"id": "bigint", "amount": "numeric(18,2)"}, {"amount": "30.3"}, ("id",), ("1", "2"))
DEV = TargetState(
    "dev",
    "duckdb",
    "2026-03-01T00:00:00Z",
    {"orders": ORDERS},
    {"shop.orders": "2026-02-28T00:00:00Z"},
    {"profile: path": "dev.duckdb", "installed: dbt-core": "1.11.16"},
)
PROD = replace(DEV, target="prod", configuration={**DEV.configuration, "profile: path": "prod.duckdb"})


def unlike(**changed: Any) -> list[tuple[str, str, str, str]]:
    found = compared(DEV, replace(PROD, tables={"orders": replace(ORDERS, **changed)}))
    return [(one.what, one.name, one.one, one.other) for one in found.unlike if one.counts]


def test_targets_that_hold_the_same_are_equal_wherever_they_are() -> None:
    found = compared(DEV, PROD)
    assert found.is_equal
    assert [(one.name, one.counts) for one in found.unlike] == [("profile: path", False)]
    assert found.sentence() == "dev and prod: 1 table, all the same."


def test_targets_that_hold_nothing_are_not_known_to_be_the_same() -> None:
    nothing = {"orders": TableState(None, {}, {})}
    found = compared(replace(DEV, tables=nothing), replace(PROD, tables=nothing))
    assert not found.is_equal
    assert found.sentence() == "dev and prod: there is no table to compare, so nothing is proven to be the same."
    assert [(one.what, one.one, one.other, one.counts) for one in found.unlike if one.what == "table"] == [
        ("table", "missing", "missing", False)
    ]
    assert not compared(replace(DEV, tables={}), replace(PROD, tables={})).is_equal


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"rows": 3}, ("rows", "orders", "2", "3")),
        ({"rows": None}, ("table", "orders", "there", "missing")),
        ({"keys": ("2", "3")}, ("keys (id)", "orders", "1 of its own: 1", "1 of its own: 3")),
        ({"keys": ("1", "2", "2")}, ("keys (id)", "orders", "none of its own", "1 of its own: 2")),
        ({"sums": {"amount": "30.31"}}, ("sum", "orders.amount", "30.3", "30.31")),
        (
            {"columns": {"id": "bigint", "amount": "double"}},
            ("type", "orders.amount", "numeric(18,2)", "double"),
        ),
        ({"columns": {"id": "bigint"}}, ("columns", "orders", "has amount", "has no other")),
        (
            {"columns": {"amount": "numeric(18,2)", "id": "bigint"}},
            ("order of columns", "orders", "id, amount", "amount, id"),
        ),
    ],
)
def test_each_difference_is_named(changed: dict[str, Any], told: tuple[str, ...]) -> None:
    assert unlike(**changed) == [told]


def test_a_version_counts_and_new_data_is_told() -> None:
    other = replace(
        PROD,
        configuration={**PROD.configuration, "installed: dbt-core": "1.10.0", "last run: variable day": "x"},
        sources={"shop.orders": "2026-03-01T00:00:00Z"},
    )
    found = compared(DEV, other)
    assert not found.is_equal
    assert [(row[""], row["name"], row["dev"], row["prod"]) for row in table_rows(found)] == [
        ("differs", "installed: dbt-core", "1.11.16", "1.10.0"),
        ("differs", "last run: variable day", "-", "x"),
        ("note", "shop.orders", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"),
        ("note", "profile: path", "dev.duckdb", "prod.duckdb"),
    ]


def test_the_version_is_that_of_the_targets_own_dbt(tmp_path: Path) -> None:
    program = tmp_path / "dbt"
    program.write_text("#!/bin/sh\necho dbt-core 2.0.0-alpha.4\n")
    program.chmod(0o755)
    elsewhere = Profile("prod", "shop", {"type": "duckdb"}, {}, dbt=str(program))
    assert versions_of(elsewhere) == {"installed: dbt-core": "2.0.0-alpha.4"}
    own = versions_of(Profile("dev", "shop", {"type": "duckdb"}, {}))
    assert own == {f"installed: {name}": version(name) for name in ("dbt-core", "dbt-duckdb")}


def test_types_of_two_kinds_of_warehouse_are_not_held_against_each_other() -> None:
    other = replace(
        PROD, warehouse="postgres", tables={"orders": replace(ORDERS, columns={"id": "int8", "amount": "numeric"})}
    )
    assert compared(DEV, other).is_equal


def test_a_state_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    save(DEV, tmp_path / "before.json")
    before = load(tmp_path / "before.json")
    assert before == DEV
    now = replace(DEV, at="2026-03-02T00:00:00Z", tables={"orders": replace(ORDERS, rows=3)})
    found = compared(before, now)
    assert list(table_rows(found)[0]) == ["", "what", "name", "before", "now"]
    assert found.sentence().startswith("dev of 2026-03-01T00:00:00Z and of 2026-03-02")
    assert as_document(found)["tables"] == {"orders": {"rows": [2, 3]}}
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"other\.json is not a saved state of a target"):
        load(tmp_path / "other.json")


def test_what_names_a_row_is_what_a_test_proves() -> None:
    def proof(name: str, attached: str, **arguments: Any) -> dict[str, Any]:
        about = {"name": name, "kwargs": arguments}
        return {"name": name, "resource_type": "test", "attached_node": attached, "test_metadata": about}

    nodes = {
        "model.p.a": {"name": "a", "resource_type": "model", "config": {}},
        "model.p.b": {"name": "b", "resource_type": "model", "config": {}},
        "model.p.c": {"name": "c", "resource_type": "model", "config": {"meta": {"key": ["x", "y"]}}},
        "model.p.d": {"name": "d", "resource_type": "model", "config": {}},
        "1": proof("unique", "model.p.a", column_name="id"),
        "2": proof("unique_combination_of_columns", "model.p.b", columns=["i", "j"]),
        "3": proof("unique", "model.p.d", column_name="id") | {"config": {"where": "is_current"}},
    }
    declared = ProjectTables(manifest_of({"nodes": nodes}), ())
    assert [declared.row_key(f"model.p.{name}") for name in "abcd"] == [("id",), ("i", "j"), ("x", "y"), ()]
