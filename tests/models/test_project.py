"""What every node of the project has, read from its manifest; no warehouse is touched."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.warehouses.builds import PROJECT, DuckDB, Finished
from tests.support.warm_children import DBT_SELECTORS

DOMAINS = {"marketing", "payroll", "github"}
PUBLISHED = {"marts", "metrics", "gold"}
LOADED_AT = {
    "github": "ingested_at",
    "google_ads": "_airbyte_extracted_at",
    "facebook_ads": "_airbyte_extracted_at",
    # Loaded by an older Airbyte.
    "supabase": "_airbyte_emitted_at",
}
LAYERS = PUBLISHED | {"staging", "intermediate", "bronze", "silver"}


@pytest.fixture(scope="module")
def manifest(parsed: tuple[DuckDB, Finished]) -> dict[str, Any]:
    folder, finished = parsed
    assert finished.exit_code == 0, finished.output
    return folder.manifest()


@pytest.fixture(scope="module")
def models(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in manifest["nodes"].values() if node["resource_type"] == "model"}


@pytest.fixture(scope="module")
def data_tests(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [node for node in manifest["nodes"].values() if node["resource_type"] == "test"]


@pytest.fixture(scope="module")
def selectors() -> dict[str, dict[str, Any]]:
    """The definition of every selector."""
    entries = yaml.safe_load((PROJECT / "selectors.yml").read_text(encoding="utf-8"))["selectors"]
    return {entry["name"]: entry["definition"] for entry in entries}


@pytest.fixture(scope="module")
def selected(parsed: tuple[DuckDB, Finished], selectors: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    """The nodes of every selector that is more than a tag."""
    folder, _ = parsed
    names = [name for name, definition in selectors.items() if definition.get("method") != "tag"]
    options = [f"--project-dir={PROJECT}", f"--profiles-dir={folder.folder}", "--log-level-file=none"]
    child = subprocess.run(
        [*DBT_SELECTORS, json.dumps(options), json.dumps(names)],
        cwd=folder.folder,
        env=os.environ
        | {"DBT_TARGET_PATH": str(folder.folder / "target"), "DBT_LOG_PATH": str(folder.folder / "logs")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return {name: set(found) for name, found in json.loads(child.stdout.split("FOUND")[1]).items()}


def published(models: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [model for model in models.values() if PUBLISHED & set(model["tags"])]


def offenders(nodes: Iterable[dict[str, Any]]) -> list[str]:
    return sorted(node["unique_id"] for node in nodes)


def test_the_project_parses_with_warnings_as_errors_and_nothing_deprecated(
    parsed: tuple[DuckDB, Finished],
) -> None:
    _, finished = parsed
    assert finished.exit_code == 0, finished.output
    assert "deprecat" not in finished.output.lower()


def test_every_model_says_what_one_row_is(models: dict[str, dict[str, Any]]) -> None:
    assert not offenders(model for model in models.values() if not model["description"].startswith("One row per "))


def test_every_model_belongs_to_one_domain_and_one_layer(models: dict[str, dict[str, Any]]) -> None:
    for model in models.values():
        tags = set(model["tags"])
        assert len(tags & LAYERS) == 1, model["unique_id"]
        assert tags & DOMAINS == {model["group"]}, model["unique_id"]


def test_every_mart_has_an_enforced_contract_with_described_columns(
    models: dict[str, dict[str, Any]],
) -> None:
    assert published(models)
    for model in published(models):
        assert model["contract"]["enforced"], model["unique_id"]
        for name, column in model["columns"].items():
            assert column["description"] and column["data_type"], f"{model['name']}.{name}"


def test_every_mart_has_a_key_that_is_tested(
    models: dict[str, dict[str, Any]], data_tests: list[dict[str, Any]]
) -> None:
    tested: dict[str, dict[str, set[str]]] = {}
    for test in data_tests:
        if (test.get("test_metadata") or {}).get("name") in ("unique", "not_null"):
            columns = tested.setdefault(test["attached_node"], {})
            columns.setdefault(test["column_name"], set()).add(test["test_metadata"]["name"])
    keyless = [m for m in published(models) if {"unique", "not_null"} not in tested[m["unique_id"]].values()]
    assert not offenders(keyless)


def test_money_has_one_type(models: dict[str, dict[str, Any]]) -> None:
    words = ("amount", "deductions", "budget", "conversion_value", "net_difference")
    for model in published(models):
        for name, column in model["columns"].items():
            if name.endswith(words) or name == "spend":
                assert column["data_type"] == "numeric(18,2)", f"{model['name']}.{name}"


def test_every_source_table_is_described_and_watched(manifest: dict[str, Any]) -> None:
    assert {source["source_name"] for source in manifest["sources"].values()} == LOADED_AT.keys()
    for source in manifest["sources"].values():
        assert source["description"] and source["source_description"], source["unique_id"]
        assert source["loaded_at_field"] == LOADED_AT[source["source_name"]], source["unique_id"]
        assert source["freshness"]["warn_after"]["count"] and source["freshness"]["error_after"]["count"]
        meta = source["config"]["meta"]
        assert meta["owner"] and meta["freshness_hours"], source["unique_id"]
        assert ("airbyte_connection_id" in meta) == (source["loader"] == "airbyte"), source["unique_id"]


def test_only_the_first_layer_reads_sources(models: dict[str, dict[str, Any]]) -> None:
    reading = [m for m in models.values() if any(parent.startswith("source.") for parent in m["depends_on"]["nodes"])]
    assert not offenders(model for model in reading if not {"staging", "bronze"} & set(model["tags"]))


def test_every_exposure_is_owned_by_a_team_that_owns_models(manifest: dict[str, Any]) -> None:
    teams = {group["owner"]["name"]: group["owner"]["email"] for group in manifest["groups"].values()}
    assert len(manifest["exposures"]) >= len(DOMAINS)
    for exposure in manifest["exposures"].values():
        assert teams[exposure["owner"]["name"]] == exposure["owner"]["email"], exposure["name"]
        assert exposure["url"] and exposure["description"] and exposure["maturity"], exposure["name"]
        assert exposure["depends_on"]["nodes"], exposure["name"]


def test_every_macro_and_its_arguments_are_described(manifest: dict[str, Any]) -> None:
    branch_of = ("default__", "duckdb__", "postgres__", "snowflake__", "bigquery__", "test_")
    own = [macro for macro in manifest["macros"].values() if macro["package_name"] == "tributary"]
    assert len(own) > 10
    for macro in own:
        if not macro["name"].startswith(branch_of):
            assert macro["description"], macro["name"]
            assert all(argument["description"] for argument in macro["arguments"]), macro["name"]


def test_a_layer_is_a_schema_that_stands_alone_only_in_production(manifest: dict[str, Any], tmp_path: Path) -> None:
    production = DuckDB(tmp_path, target="prod")
    finished = production.dbt("parse")
    assert finished.exit_code == 0, finished.output
    payments = "model.tributary.fct_musician_payment"
    assert manifest["nodes"][payments]["schema"] == "dev_gold"
    assert production.manifest()["nodes"][payments]["schema"] == "gold"


def test_every_layer_and_domain_has_a_selector_of_its_own(
    manifest: dict[str, Any], selectors: dict[str, dict[str, Any]]
) -> None:
    tags = {tag for node in manifest["nodes"].values() for tag in node["tags"]}
    by_tag = {name: definition["value"] for name, definition in selectors.items() if "value" in definition}
    assert by_tag.keys() >= LAYERS | DOMAINS
    assert {by_tag[name] for name in LAYERS | DOMAINS} <= tags
    assert all(by_tag[name] == name for name in LAYERS | DOMAINS)


def test_selectors_of_flows_hold_what_they_say(manifest: dict[str, Any], selected: dict[str, set[str]]) -> None:
    assert all(selected.values())
    assert {unique_id for unique_id in manifest["nodes"] if unique_id.startswith("model.")} <= selected["nightly"]
    assert not [unique_id for unique_id in selected["nightly"] if unique_id.startswith("unit_test.")]
    assert all(unique_id.startswith("test.") for unique_id in selected["critical_tests"])
    assert selected["critical_tests"] <= selected["payroll_gate"]
    gate = ("fct_musician_payment", "br_attendance_scd2", "dim_musician", "dim_concert")
    assert {f"model.tributary.{name}" for name in gate} <= selected["payroll_gate"]


@pytest.mark.parametrize("source", ["google_ads", "facebook_ads", "supabase"])
def test_a_selector_of_a_source_reaches_everything_that_stands_on_it(
    source: str, manifest: dict[str, Any], selected: dict[str, set[str]]
) -> None:
    """Else PostgreSQL drops views that nothing makes again."""
    reached = {unique_id for unique_id in manifest["sources"] if unique_id.split(".")[2] == source}
    frontier = set(reached)
    while frontier:
        frontier = {child for parent in frontier for child in manifest["child_map"].get(parent, ())} - reached
        reached |= frontier
    standing = {unique_id for unique_id in reached if unique_id.split(".")[0] in ("model", "snapshot")}
    assert standing and standing <= selected[source]
