"""What people read of a node, from what dbt left in its folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flows.engine.artifacts.descriptions import Column, read_descriptions


def folder(place: Path, nodes: dict[str, Any], catalog: dict[str, Any] | None = None) -> Path:
    place.mkdir()
    (place / "manifest.json").write_text(json.dumps({"nodes": nodes}))
    if catalog:
        (place / "catalog.json").write_text(json.dumps({"nodes": catalog}))
    return place


def entry(kind: str = "model", **fields: Any) -> dict[str, Any]:
    return {"name": "a", "resource_type": kind, "package_name": "shop", "original_file_path": "models/a.sql", **fields}


def test_columns_have_the_type_that_the_warehouse_has_and_else_the_one_that_is_declared(tmp_path: Path) -> None:
    columns = {
        "Id": {"name": "Id", "data_type": "int", "description": "The key."},
        "b": {"name": "b", "data_type": "date"},
    }
    catalog = {
        "model.shop.a": {"columns": {"ID": {"name": "ID", "type": "BIGINT"}, "X": {"name": "X", "type": "TEXT"}}}
    }
    nodes = {"model.shop.a": entry(columns=columns, description="Orders."), "test.shop.t": entry("test")}
    found = read_descriptions([folder(tmp_path / "target", nodes, catalog)])
    assert found.keys() == {"model.shop.a"}
    assert found["model.shop.a"].text == "Orders."
    assert found["model.shop.a"].columns == (
        Column("Id", "BIGINT", "The key."),
        Column("b", "date", ""),
        Column("X", "TEXT", ""),
    )


def test_sql_that_a_partial_run_did_not_compile_is_that_of_the_run_before(tmp_path: Path) -> None:
    target = folder(tmp_path / "target", {"model.shop.a": entry(), "model.shop.b": entry(original_file_path="b.sql")})
    (target / "compiled" / "shop" / "models").mkdir(parents=True)
    (target / "compiled" / "shop" / "models" / "a.sql").write_text("select 1\n")
    good = folder(
        tmp_path / "good", {key: entry(compiled_code=f"select '{key}'") for key in ("model.shop.a", "model.shop.b")}
    )
    found = read_descriptions([target, good])
    assert (found["model.shop.a"].sql, found["model.shop.b"].sql) == ("select 1", "select 'model.shop.b'")


def test_a_path_that_leads_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password")
    target = folder(tmp_path / "target", {"model.shop.a": entry(original_file_path="../../../secret")})
    (target / "compiled" / "shop").mkdir(parents=True)
    assert read_descriptions([target])["model.shop.a"].sql == ""


def test_folders_without_a_manifest_that_can_be_read_describe_nothing(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[]")
    assert read_descriptions([tmp_path, tmp_path / "gone"]) == {}
