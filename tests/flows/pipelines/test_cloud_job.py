"""Jobs of dbt Cloud as flow runs: started once, taken up after a crash, retried, cancelled, reported."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.alerts.incident_store import store_of
from flows.pipelines import cloud_job as cloud_jobs
from flows.services.dbt_cloud.client import CloudClient
from flows.services.dbt_cloud.following import Followed, find_job, follow, start_or_adopt
from flows.services.dbt_cloud.settings import CloudSettings
from infrastructure.errors import ConfigError, DbtRunFailed, RunTimedOut
from tests.support.cloud.jobs import job_body
from tests.support.cloud.server import ACCOUNT, BROKEN, GATEWAY, LOST, TOKEN, Account, serving

MANIFEST = {
    "metadata": {"adapter_type": "snowflake"},
    "nodes": {
        "model.shop.orders": {
            "name": "orders",
            "resource_type": "model",
            "config": {"materialized": "table"},
            "depends_on": {"nodes": []},
        },
        "test.shop.not_null.1": {
            "name": "not_null_orders",
            "resource_type": "test",
            "config": {},
            "depends_on": {"nodes": ["model.shop.orders"]},
        },
    },
    "sources": {},
    "unit_tests": {},
    "parent_map": {},
    "child_map": {},
}
STEPS = [{"index": 4, "name": "dbt run", "status": 10}, {"index": 5, "name": "dbt test", "status": 20}]


def run_results(invocation: str, unique_id: str, status: str, message: str = "") -> bytes:
    entry = {"unique_id": unique_id, "status": status, "execution_time": 1.5, "message": message, "timing": []}
    metadata = {"invocation_id": invocation, "generated_at": "2026-11-21T12:00:00Z"}
    return json.dumps({"metadata": metadata, "results": [entry]}).encode()


def outcome(status: int, test: str = "pass", name: str = "a", **more: Any) -> dict[str, Any]:
    """What the next run comes to: a model that was built, and a test."""
    said = "Got 3 results, configured to fail if != 0" if test == "fail" else ""
    artifacts = [
        (None, "manifest.json", json.dumps(MANIFEST).encode()),
        (4, "run_results.json", run_results(f"{name}-run", "model.shop.orders", "success")),
        (5, "run_results.json", run_results(f"{name}-test", "test.shop.not_null.1", test, said)),
    ]
    return {"status": status, "steps": STEPS, "artifacts": artifacts, **more}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Account]:
    account = Account()
    with serving(account) as address:
        settings = CloudSettings(
            ACCOUNT, TOKEN, address, 1e6, timeout_seconds=2.0, backoff_seconds=0.01, poll_seconds=0.01
        )
        monkeypatch.setattr(cloud_jobs, "cloud_settings", lambda account_id=None: settings)
        monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
        account.create(job_body("nightly"))
        yield account
    assert account.mistakes == []


def without_flow(work: Callable[[CloudClient], Any]) -> Any:
    async def run() -> Any:
        async with CloudClient(cloud_jobs.cloud_settings()) as client:
            return await work(client)

    return asyncio.run(run())


def test_a_job_is_run_by_name_and_its_results_are_reported(account: Account, prefect_server: str) -> None:
    account.outcomes.append(outcome(10))
    done = cloud_jobs.run_cloud_job("nightly", steps=["dbt build"], target="prod-cloud")
    assert (done.job_name, done.was_adopted, len(done.run_ids)) == ("nightly", False, 1)
    # One from each step: the artifact that dbt Cloud gives by itself is the last step's alone.
    assert [(it.name, it.resource_type, it.outcome) for it in done.result.nodes] == [
        ("orders", "model", "succeeded"),
        ("not_null_orders", "test", "succeeded"),
    ]
    assert (done.result.target_path / "manifest.json").exists()
    import os

    from flows.history.query import ask
    from flows.history.store import history_store

    rows = ask(history_store(os.environ), "select command, target, name from nodes order by name").rows
    assert [tuple(row) for row in rows][-1] == ("dbt Cloud nightly", "prod-cloud", "orders")


def test_a_failed_run_goes_on_from_where_it_failed_and_then_fails_with_its_nodes(
    account: Account, prefect_server: str
) -> None:
    import os

    account.outcomes += [
        outcome(20, "fail", "a", message="dbt test failed"),
        outcome(20, "fail", "b"),
        outcome(10, name="c"),
    ]
    with pytest.raises(DbtRunFailed, match="failed for 1 of 2 nodes: not_null_orders") as caught:
        cloud_jobs.run_cloud_job("nightly", target="failing")
    assert caught.value.failed == ("test.shop.not_null.1",)
    assert len(account.runs) == 2
    (opened,) = store_of("failing", os.environ).read().incidents.values()
    assert opened.incident.key == "dbt cloud/nightly"
    assert opened.incident.link
    assert opened.incident.link.startswith("https://cloud.example/runs/")
    # The next run that goes well closes it.
    cloud_jobs.run_cloud_job("nightly", target="failing")
    assert all(it.closed_at for it in store_of("failing", os.environ).read().incidents.values())


def test_after_a_crash_the_run_is_taken_up_and_not_started_again(account: Account, prefect_server: str) -> None:
    """The same flow run is started again on another machine, while the run that it started still goes on."""
    account.outcomes.append(outcome(10, polls=5))
    job = next(iter(account.jobs.values()))

    async def crash(client: CloudClient) -> None:
        await start_or_adopt(client, Followed(job), "the-key", {})

    without_flow(crash)
    done = cloud_jobs.run_cloud_job("nightly", run_key="the-key")
    assert done.was_adopted
    assert len(account.runs) == 1
    # And again when it had ended meanwhile.
    assert cloud_jobs.run_cloud_job("nightly", run_key="the-key").run_ids == done.run_ids
    assert cloud_jobs.run_cloud_job("nightly", run_key="another").run_ids != done.run_ids


@pytest.mark.parametrize("kind", [LOST, GATEWAY, BROKEN])
def test_a_start_whose_answer_is_lost_is_looked_for(account: Account, kind: str) -> None:
    account.faults.planned = [("POST", "/run/", kind)]
    job = next(iter(account.jobs.values()))

    async def work(client: CloudClient) -> Any:
        followed = Followed(job)
        await start_or_adopt(client, followed, "key", {})
        return await follow(client, followed)

    assert without_flow(work)["status"] == 10
    assert len(account.runs) == 1


def test_a_retry_whose_answer_is_lost_is_looked_for(account: Account) -> None:
    account.outcomes += [outcome(20), outcome(10)]
    account.faults.planned = [("POST", "/retry/", LOST)]
    job = next(iter(account.jobs.values()))

    async def work(client: CloudClient) -> Any:
        followed = Followed(job)
        await start_or_adopt(client, followed, "key", {})
        return await follow(client, followed, retries=1)

    assert without_flow(work)["status"] == 10
    assert len(account.runs) == 2


def test_a_run_that_takes_too_long_is_cancelled(account: Account, prefect_server: str) -> None:
    account.outcomes.append(outcome(10, polls=10_000))
    with pytest.raises(RunTimedOut, match=r"took longer than 0\.5 s and was cancelled"):
        cloud_jobs.run_cloud_job("nightly", timeout_seconds=0.5)
    (run,) = account.runs.values()
    assert run["status"] == 30


def test_ctrl_c_cancels_the_run(account: Account, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    account.outcomes.append(outcome(10, polls=10_000))

    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cloud_jobs, "follow", interrupted)
    state = cloud_jobs.run_cloud_job("nightly", return_state=True)
    assert state.is_cancelled()
    (run,) = account.runs.values()
    assert run["status"] == 30


def test_a_job_is_found_by_id_or_a_name_that_is_there_once(account: Account) -> None:
    job = next(iter(account.jobs.values()))
    assert without_flow(lambda client: find_job(client, job["id"]))["name"] == "nightly"
    with pytest.raises(ConfigError, match=r"no job 'night'. There is 'nightly'"):
        without_flow(lambda client: find_job(client, "night"))
    other = account.create(job_body("nightly"))
    with pytest.raises(ConfigError, match=f"2 jobs 'nightly': .*{other['id']} in project 11. Give the id"):
        without_flow(lambda client: find_job(client, "nightly"))
