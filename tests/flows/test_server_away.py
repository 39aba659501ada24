"""A Prefect server that is slow, goes away in the middle of a run, and comes back or does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import orjson
import pytest
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.engine.context.events import DbtEvent
from flows.engine.context.reporting import reporting_to
from flows.engine.ledger.ledger import read_ledger
from flows.engine.sinks import recorder
from flows.pipelines.full import dbt_full_pipeline
from flows.pipelines.local_run import Request, run_locally
from infrastructure.profiles import load_profile
from tests.support.prefect_api import SetUpTarget
from tests.support.recorded import Recorded
from tests.support.road import Road, only_way

SHOP = str(Path(__file__).parents[1] / "projects" / "shop")
# Of the shop, with its seeds and tests.
NODES = 14


class Witness:
    """Close the road when the first node starts, and open it again when so many have ended."""

    def __init__(self, road: Road, open_after: int | None) -> None:
        self._road, self._open_after = road, open_after
        self._ended = 0
        self._is_closed = False
        self.notes: list[str] = []

    def stage(self, text: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def event(self, event: DbtEvent) -> None:
        if event.node is None:
            return
        if not self._is_closed:
            self._is_closed = True
            self._road.close()
        self._ended += event.node.finished_at is not None
        if self._ended == self._open_after:
            self._road.open()


@pytest.fixture
def road(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    """Return the only way that this process knows to the server; what is on it arrives late."""
    with only_way(Road(prefect_server, delay_seconds=0.05)) as way:
        monkeypatch.setenv("PREFECT_API_URL", way.url)
        yield way


def orders(target: str) -> int:
    with closing(duckdb.connect(load_profile(target).output["path"], read_only=True)) as connection:
        (found,) = connection.execute("select count(*) from orders").fetchone() or (0,)
        return found


def test_a_slow_server_that_goes_away_and_comes_back_gets_every_node(
    prefect_server: str, set_up_target: SetUpTarget, road: Road
) -> None:
    target = set_up_target()
    witness = Witness(road, open_after=10)
    with reporting_to(witness):
        state = dbt_full_pipeline(target=target, project_dir=SHOP, return_state=True)
    assert state.is_completed()
    assert state.state_details.flow_run_id
    recorded = Recorded(prefect_server, state.state_details.flow_run_id)
    assert {run["state_name"] for run in recorded.node_runs(NODES).values()} == {"Completed"}
    assert recorded.flow_run()["state_name"] == "Completed"
    assert not [note for note in witness.notes if "did not take" in note]


def test_a_server_that_does_not_come_back_costs_no_node_and_makes_no_failure_of_a_good_run(
    set_up_target: SetUpTarget, road: Road, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recorder, "CLOSE_SECONDS", 1.0)
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    target = set_up_target()
    witness = Witness(road, open_after=None)
    request = Request(target, SHOP)
    # Once more, and not five times: nobody will answer.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}), reporting_to(witness):
        outcome = run_locally(request)
    assert outcome.pipeline.build.counts()["failed"] == 0
    (told,) = [note for note in witness.notes if note.startswith("This flow run is ")]
    assert told.startswith("This flow run is Completed, and the Prefect server could not be told")
    assert str(tmp_path / "state") in told
    (ledger,) = (tmp_path / "state").glob("*/*/runs/*-build-*/ledger.jsonl")
    entries = list(read_ledger(ledger))
    ended = {
        entry["event"]["unique_id"] for entry in entries if entry["kind"] == "node" and entry["event"]["finished_at"]
    }
    assert len(ended) == NODES
    assert entries[-1]["is_ok"]
    # A short build may end before it learns that the server is away; what it has not sent waits for the next run.
    assert all(note.endswith(f"{ledger} has them all.") for note in witness.notes if "did not take" in note)
    kept = [orjson.loads(path.read_bytes()) for path in (tmp_path / "state" / "unsent").glob("*.events")]
    events = [event for document in kept for event in document["events"]]
    waiting = {event["payload"]["task_run"]["dynamic_key"] for event in events if "task_run" in event["payload"]}
    assert ended <= waiting
    assert "prefect.asset.materialization.succeeded" in {event["event"] for event in events}
    road.open()
    assert orders(target) == 4
