"""From a finished sync to the marts: real dbt and DuckDB, a stand-in for Airbyte, tests of every kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.context.project import read_project
from flows.engine.context.state import state_of
from flows.pipelines.new_data import transform_new_data, write_built_from
from flows.pipelines.transform import critical_failures, dbt_transformation_flow, fast_transform, nightly_build
from flows.services.redis_cache import open_cache
from infrastructure.blocks.documents import CACHE_BLOCK
from infrastructure.errors import ConfigError, DbtRunFailed, UpstreamUnavailable
from infrastructure.workspace import ROOT
from tests.support.advertising import ADS, PROJECT, Advertising
from tests.support.airbyte.server import AirbyteServer
from tests.support.prefect_api import SetUpTarget


@pytest.fixture(scope="module")
def ads(set_up_target: SetUpTarget) -> Advertising:
    """Build everything once, as the nightly refresh does."""
    ads = Advertising(set_up_target())
    ads.load(("2026-11-20", "search", 10))
    done = nightly_build(ads.target, project_dir=PROJECT)
    assert outcomes(done.build)["spend_by_person"] == "succeeded"
    assert done.tests
    assert outcomes(done.tests) == {"channel_is_known": "succeeded", "not_null_fct_spend_spent_on": "succeeded"}
    return ads


@pytest.fixture
def known_airbyte(airbyte: AirbyteServer) -> Iterator[AirbyteServer]:
    """Register the stand-in as setup does."""
    Secret(value=airbyte.api_url).save("airbyte-api-url", overwrite=True)
    yield airbyte
    Secret.delete("airbyte-api-url")


def outcomes(result: DbtResult) -> dict[str, str]:
    return {node.name: node.outcome for node in result.nodes}


def incidents(target: str) -> dict[str, Any]:
    path = Path(os.environ["TRIBUTARY_STATE"]) / "alerts" / f"{target}.json"
    return json.loads(path.read_text())["incidents"] if path.exists() else {}


def test_what_a_sync_brought_is_in_the_marts_and_a_test_that_is_not_critical_stops_nothing(
    ads: Advertising, known_airbyte: AirbyteServer
) -> None:
    """The sync still runs when the flow starts; somebody called a channel by a name that no test knows."""
    known_airbyte.add_connection(ADS)
    job = known_airbyte.add_job(ADS, "running", "succeeded")
    ads.load(("2026-11-20", "search", 10), ("2026-11-21", "video", 5))
    done = dbt_transformation_flow("ads", ADS, target=ads.target, project_dir=PROJECT)
    assert outcomes(done.build) == {
        "stg_spend": "succeeded",
        "not_null_stg_spend_amount": "succeeded",
        "fct_spend": "succeeded",
        "daily_spend": "succeeded",
        "spend_by_person": "succeeded",
    }
    assert done.tests
    assert outcomes(done.tests) == {"channel_is_known": "failed", "not_null_fct_spend_spent_on": "succeeded"}
    assert (done.sources, done.syncs[ADS].job_id, done.syncs[ADS].status) == (("ads",), job, "succeeded")
    assert ads.read("select sum(amount) from daily_spend") == [(Decimal("15.00"),)]


def test_a_critical_test_stops_what_stands_on_the_tested_model(ads: Advertising) -> None:
    before = ads.read("select * from fct_spend order by all")
    ads.load(("2026-11-22", "search", None))
    with pytest.raises(DbtRunFailed, match=r"dbt build failed on target .* not_null_stg_spend_amount") as raised:
        dbt_transformation_flow("ads", target=ads.target, project_dir=PROJECT)
    assert {name for name, outcome in outcomes(raised.value.result).items() if outcome == "skipped"} == {
        "fct_spend",
        "daily_spend",
        "spend_by_person",
    }
    assert ads.read("select * from fct_spend order by all") == before


@pytest.mark.parametrize(("status", "severity"), [("failed", "error"), ("cancelled", "warning")])
def test_a_sync_that_did_not_succeed_builds_nothing_and_is_told(
    ads: Advertising, known_airbyte: AirbyteServer, status: str, severity: str
) -> None:
    known_airbyte.add_connection(ADS)
    job = known_airbyte.add_job(ADS, status, reason="The password is wrong.")
    known_airbyte.add_job(ADS, "running")
    with pytest.raises(UpstreamUnavailable, match=rf"sync {job} of .* (failed|was cancelled), so nothing was built"):
        dbt_transformation_flow("ads", jobs={ADS: job}, target=ads.target, project_dir=PROJECT)
    assert incidents(ads.target)[f"airbyte sync/{ADS}"]["incident"]["severity"] == severity


def test_a_source_that_the_project_does_not_have_is_named_before_anything_runs(ads: Advertising) -> None:
    with pytest.raises(ConfigError, match=r"project advertising has no source crn; did you mean `crm`\?"):
        dbt_transformation_flow(["ads", "crn"], target=ads.target, project_dir=PROJECT)
    with pytest.raises(ConfigError, match=r"has no source payroll\. It has ads, crm\."):
        dbt_transformation_flow("payroll", target=ads.target, project_dir=PROJECT)


def test_a_connection_can_only_be_asked_about_where_airbyte_is_set_up(ads: Advertising) -> None:
    with pytest.raises(ConfigError, match=r"No Airbyte is set up"):
        dbt_transformation_flow("ads", ADS, target=ads.target, project_dir=PROJECT)


def test_the_fast_path_fills_the_cache_and_leaves_the_tests_to_a_run_of_their_own(
    ads: Advertising, redis_url: str
) -> None:
    """The tests of what dashboards read fail, critical ones too, and the dashboards have their data all the same."""
    Secret(value=redis_url).save(CACHE_BLOCK, overwrite=True)
    ads.load(("2026-11-23", "search", 7), ("2026-11-23", "search", None))
    try:
        state = fast_transform("ads", ads.target, PROJECT, cache_hours=1, return_state=True)
    finally:
        Secret.delete(CACHE_BLOCK)
    done = state.result()
    # What stands between the source and the dashboard, and nothing beside it.
    assert list(outcomes(done.build)) == ["stg_spend", "fct_spend", "daily_spend"]
    rows = ads.read("select cast(spent_on as text), amount from daily_spend order by 1")
    assert done.cached == {"daily_spend": len(rows)}
    with open_cache(redis_url, ads.target) as cache:
        document = cache.read("daily_spend")
    assert document
    assert sorted((row["spent_on"], row["amount"]) for row in document["rows"]) == [
        (day, float(amount)) for day, amount in rows
    ]
    name = f"dashboard-tests ads {ads.target}"
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(like_=name)))
    assert [run.state_name for run in runs] == ["Failed"]


def test_a_fast_path_without_a_dashboard_says_what_to_tag(ads: Advertising) -> None:
    with pytest.raises(
        ConfigError, match=r"No model with the tag dashboard depends on source crm\. Give dashboards' models"
    ):
        fast_transform("crm", ads.target, PROJECT)


def test_only_what_stands_on_newer_data_is_built_and_nothing_without_any(ads: Advertising) -> None:
    path = state_of(read_project(PROJECT), ads.target, os.environ).folder / "built_from.json"
    write_built_from(path, {"source.advertising.crm.people": datetime(2026, 11, 20, tzinfo=UTC)})
    ads.load(("2026-11-24", "search", 3), at="2026-11-24 09:00:00")
    done = transform_new_data(ads.target, PROJECT)
    assert done.newer == ("ads.spend",)
    assert done.transformation
    built = outcomes(done.transformation.build)
    assert built["daily_spend"] == "succeeded"
    assert "stg_people" not in built
    command = [sys.executable, "-m", "flows", "new-data", "--target", ads.target, "--project-dir", PROJECT]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout == "No new data: none of 2 source tables is newer than what was last built.\n"


def test_a_run_goes_on_only_past_tests_that_are_known_not_to_be_critical(tmp_path: Path) -> None:
    nodes = {
        f"test.shop.{name}": {"name": name, "resource_type": "test", "config": {"meta": {"critical": mark}}}
        for name, mark in {"minor": "no", "money": "true"}.items()
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"nodes": nodes}))
    at = datetime(2026, 3, 1, tzinfo=UTC)

    def stops(status: str, unique_id: str) -> bool:
        bad = NodeResult(unique_id, unique_id.split(".")[2], unique_id.split(".")[0], "", status, at, at)
        return critical_failures(DbtResult("dbt test", "t", (bad,), at, at, tmp_path, tmp_path)) == [unique_id]

    assert not stops("fail", "test.shop.minor")
    assert not stops("pass", "test.shop.money")
    assert stops("fail", "test.shop.money")
    assert stops("skipped", "test.shop.money")
    assert stops("fail", "test.shop.renamed"), "nobody knows what it was"
    assert stops("skipped", "model.shop.orders")
