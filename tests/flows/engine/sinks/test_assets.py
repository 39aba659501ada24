"""Relations as Prefect's assets: which events stand for a command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.manifest_file import manifest_of
from flows.engine.artifacts.results import NodeResult
from flows.engine.context.run_context import FlowRun
from flows.engine.sinks.assets import asset_events, asset_key

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
FLOW_RUN = FlowRun(UUID(int=1), "shop build prod")


def entry(name: str, kind: str = "model", above: str = "", **more: Any) -> dict[str, Any]:
    relation = {} if kind == "test" else {"relation_name": f'"db"."marts"."{name}"'}
    parents = [f"{each}" for each in above.split()]
    return {"name": name, "resource_type": kind, "depends_on": {"nodes": parents}, **relation, **more}


MANIFEST: Manifest = manifest_of(
    {
        "metadata": {"adapter_type": "postgres"},
        "sources": {"source.shop.raw.paid": entry("paid", "source")},
        "nodes": {
            "model.shop.inlined": entry(
                "inlined", above="source.shop.raw.paid", relation_name=None, config={"materialized": "ephemeral"}
            ),
            "model.shop.orders": entry(
                "orders",
                above="model.shop.inlined",
                description="One row per order.",
                config={"meta": {"owner": "sales", "url": "https://wiki/orders"}},
            ),
            "model.shop.quiet": entry("quiet", config={"meta": {"prefect": {"enable_assets": False}}}),
            "model.shop.sums": entry("sums", above="model.shop.orders"),
            "test.shop.unique": entry("unique", "test", above="model.shop.orders"),
            "test.shop.filled": entry("filled", "test", above="model.shop.orders"),
        },
    }
)


def ended(unique_id: str, status: str = "success", **more: Any) -> NodeResult:
    kind = unique_id.partition(".")[0]
    name = unique_id.rpartition(".")[2]
    return NodeResult(unique_id, name, kind, "table", status, AT, AT + timedelta(seconds=2), **more)


def of(*results: NodeResult) -> list[dict[str, Any]]:
    return asset_events(FLOW_RUN, results, MANIFEST)


def test_a_table_that_was_built_is_an_asset_with_what_it_reads_and_what_is_known_of_it() -> None:
    read, built = of(
        ended("model.shop.orders", adapter_response={"rows_affected": 7}),
        ended("test.shop.unique", "pass"),
        ended("test.shop.filled", "warn"),
    )
    assert read["event"] == "prefect.asset.referenced"
    assert read["resource"]["prefect.resource.id"] == "postgres://db/marts/paid"
    assert built["event"] == "prefect.asset.materialization.succeeded"
    assert built["resource"] == {
        "prefect.resource.id": "postgres://db/marts/orders",
        "prefect.resource.name": "db.marts.orders",
        "prefect.asset.description": "One row per order.",
        "prefect.asset.owners": '["sales"]',
        "prefect.asset.url": "https://wiki/orders",
        "tributary.tests": "warned",
    }
    roles = {each["prefect.resource.role"]: each["prefect.resource.id"] for each in built["related"]}
    assert roles["asset"] == "postgres://db/marts/paid", "an ephemeral model is looked through"
    assert roles["flow-run"] == f"prefect.flow-run.{FLOW_RUN.id}"
    assert built["payload"]["rows"] == 7
    assert built["payload"]["tests"] == {"succeeded": 1, "warned": 1}
    assert built["occurred"] == "2026-11-28T12:00:02+00:00"


def test_a_table_that_could_not_be_built_is_one_that_failed() -> None:
    read, failed = of(ended("model.shop.sums", "error", message="division by zero of row 4711"))
    assert read["resource"]["prefect.resource.id"] == "postgres://db/marts/orders", "it stands there from before"
    assert failed["event"] == "prefect.asset.materialization.failed"
    assert "4711" not in str(failed)


@pytest.mark.parametrize(
    "left_out",
    [
        ended("model.shop.sums", "skipped"),
        ended("model.shop.sums", "reused"),
        ended("model.shop.quiet"),
        ended("test.shop.unique", "pass"),
        ended("model.shop.gone"),
    ],
)
def test_what_was_not_built_or_is_switched_off_is_none(left_out: NodeResult) -> None:
    assert of(left_out) == []


def test_a_key_is_that_of_prefect_dbt() -> None:
    assert asset_key("snowflake", "SHOP.MARTS.ORDERS") == "snowflake://SHOP/MARTS/ORDERS"
    assert asset_key("bigquery", "`p-1`.`marts`.`my orders`") == "bigquery://p-1/marts/myorders"
    assert len(asset_key("duckdb", "x" * 600)) == 512


def test_the_same_end_is_the_same_event() -> None:
    first, second = of(ended("model.shop.quiet"), ended("model.shop.sums")), of(ended("model.shop.sums"))
    assert [event["id"] for event in first] == [event["id"] for event in second]
