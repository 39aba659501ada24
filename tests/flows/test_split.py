"""A project is built in parts by several workers, under one lock and into one result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.state import LEDGER
from flows.engine.ledger.ledger import read_ledger
from flows.engine.target.file_lock import one_writer
from flows.split import build_part, split_build
from flows.split_workers import local_workers
from infrastructure.errors import ConfigError, DbtRunFailed, UpstreamUnavailable
from tests.conftest import SetUpTarget

MODELS = {
    "orders": ("sales", "select 1 as id"),
    "order_lines": ("sales", "select id from {{ ref('orders') }}"),
    "people": ("staff", "select 2 as id"),
    "pay": ("staff", "select id / 0 as id from {{ ref('people') }}"),
    "payslips": ("finance", "select id from {{ ref('pay') }}"),
    "revenue": ("board", "select id from {{ ref('order_lines') }}"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a project of four domains, of which one fails."""
    folder = tmp_path_factory.mktemp("domains")
    (folder / "models").mkdir()
    (folder / "dbt_project.yml").write_text(
        "name: domains\nversion: '1.0'\nprofile: domains\nflags: {send_anonymous_usage_stats: false}\n"
        "models: {domains: {+materialized: table}}\n"
    )
    for name, (_, sql) in MODELS.items():
        (folder / "models" / f"{name}.sql").write_text(f"{sql}\n")
    owner = {"name": "Somebody", "email": "somebody@example.org"}
    groups = [{"name": group, "owner": owner} for group in sorted({group for group, _ in MODELS.values()})]
    models = [
        {"name": name, "config": {"group": group}, "columns": [{"name": "id", "data_tests": ["not_null"]}]}
        for name, (group, _) in MODELS.items()
    ]
    (folder / "models" / "models.yml").write_text(json.dumps({"version": 2, "groups": groups, "models": models}))
    return folder


@pytest.mark.slow
def test_a_failing_part_stops_what_stands_on_it_and_nothing_else(
    project: Path, set_up_target: SetUpTarget, postgres_database: dict[str, Any]
) -> None:
    place = {name: postgres_database[name] for name in ("host", "port", "user", "dbname")}
    settings = {"warehouse": "postgres", **place, "schema": "split", "threads": 2, "password_env": "PASSWORD"}
    target = set_up_target(settings, {"PASSWORD": postgres_database["password"] or "none"})

    with local_workers(2) as deployment, pytest.raises(DbtRunFailed) as failed:
        split_build(deployment=deployment, target=target, project_dir=str(project), workers=2)

    result = failed.value.result
    assert isinstance(result, DbtResult)
    outcomes = {node.unique_id.split(".")[2]: node.outcome for node in result.nodes if node.resource_type == "model"}
    assert outcomes == {
        "orders": "succeeded",
        "order_lines": "succeeded",
        "people": "succeeded",
        "pay": "failed",
        "payslips": "skipped",
        "revenue": "succeeded",
    }
    assert "division by zero" in str(failed.value)
    messages = {node.name: node.message for node in result.nodes}
    assert messages["payslips"] == "Part staff failed, on which this stands."
    # All of it is on the record of one run, as if one dbt had done it.
    entries = list(read_ledger(result.run_path / LEDGER))
    assert entries[0]["command"]["verb"] == "build"
    assert [entry["is_ok"] for entry in entries if entry["kind"] == "end"] == [False]
    assert {entry["event"]["name"] for entry in entries if entry["kind"] == "node"} >= MODELS.keys()
    # The target is free again, and a part that comes too late writes nothing.
    with one_writer(target, holder="somebody else", wait=False), pytest.raises(UpstreamUnavailable) as refused:
        build_part(target, "sales", ["model.domains.orders"], lease="of a run that is over", project_dir=str(project))
    assert "is no longer held by the run that this is a part of, but by somebody else" in str(refused.value)


def test_a_warehouse_for_one_process_is_refused_before_anything_is_done(
    project: Path, set_up_target: SetUpTarget
) -> None:
    with pytest.raises(ConfigError, match=r"is a DuckDB file, which one process at a time can write to"):
        split_build(deployment="build-part/nobody", target=set_up_target(), project_dir=str(project))
