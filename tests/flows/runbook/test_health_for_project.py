"""The thresholds that come with Tributary, fitted to other projects."""

from __future__ import annotations

from typing import Any

from flows.engine.artifacts.manifest_file import manifest_of
from flows.history.health_settings import Health, load_health
from flows.runbook.health.for_project import for_project


def node(name: str, *parents: str, kind: str = "model", **more: Any) -> dict[str, Any]:
    table = {"config": {"materialized": "table"}, "relation_name": f"main.{name}"} if kind == "model" else {}
    return {
        "name": name,
        "resource_type": kind,
        "fqn": ["shop", name],
        "depends_on": {"nodes": list(parents)},
        **table,
        **more,
    }


def fitted(nodes: dict[str, Any], sources: dict[str, Any] | None = None) -> tuple[Health, tuple[str, ...]]:
    return for_project(load_health(), manifest_of({"nodes": nodes, "sources": sources or {}, "exposures": {}}))


SHOP = {
    "model.shop.raw": node("raw"),
    "model.shop.orders": node("orders", "model.shop.raw"),
    "model.shop.customers": node("customers", "model.shop.raw"),
    "test.shop.t": node("t", "model.shop.orders", kind="test"),
}


def test_a_project_without_payroll_is_not_asked_for_it() -> None:
    health, left_out = fitted(SHOP)

    assert left_out == ("source_freshness", "scd2_integrity", "reconciliation", "transformation_lag", "built_recently")
    assert health.tests
    assert health.tests.select == "fqn:*"
    assert health.row_counts
    assert health.row_counts.select == "customers orders", "the tables that no model reads"


def test_what_a_project_has_is_checked_as_the_file_says() -> None:
    source: dict[str, Any] = {"name": "s", "resource_type": "source", "fqn": ["shop", "s"], "loaded_at_field": "at"}
    source["freshness"] = {"warn_after": {"count": 1, "period": "day"}}
    tagged = SHOP | {"model.shop.kinds": node("kinds", "source.shop.s", tags=["gold", "scd2"])}

    health, left_out = fitted(tagged, {"source.shop.s": source})

    assert left_out == ("reconciliation", "built_recently")
    assert health.tests == load_health().tests
    assert health.row_counts == load_health().row_counts
    assert health.transformation_lag == load_health().transformation_lag


def test_a_project_without_tests_or_tables_has_no_such_checks() -> None:
    health, left_out = fitted({"model.shop.a": node("a", relation_name=None)})

    assert {"tests", "row_counts"} <= set(left_out)
    assert health.last_run == load_health().last_run
