"""What is done with what was stored: asked, told, started, and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deployments.webhook.inbox.delivery import Delivery
from deployments.webhook.inbox.metrics import Metrics
from deployments.webhook.inbox.spool import Spool
from deployments.webhook.start.dispatcher import Dispatcher
from deployments.webhook.start.starter import Result, Started, Starter
from deployments.webhook.start.verdict import JobState
from flows.services.airbyte.sync_events import AirbyteSync
from infrastructure.errors import ConfigError, UpstreamUnavailable
from tests.support.webhook.deliveries import FACEBOOK_ADS, GOOGLE_ADS


@dataclass
class Starts(Starter):
    """Write down what is started, or fail as Prefect would."""

    unions: list[list[AirbyteSync]] = field(default_factory=list)
    error: Exception | None = None

    async def start(self, unions: Sequence[Sequence[AirbyteSync]]) -> list[Result]:
        if isinstance(self.error, UpstreamUnavailable):
            raise self.error
        if isinstance(self.error, ConfigError):
            return [self.error for _ in unions]
        self.unions += [list(union) for union in unions]
        return [Started(f"run {len(self.unions)}", is_new=True) for _ in unions]


@dataclass
class Jobs:
    """Be an Airbyte with these jobs; with none, it does not answer."""

    states: dict[int, str] = field(default_factory=dict)

    def job(self, connection_id: str, job_id: int) -> JobState | None:
        if not self.states:
            raise UpstreamUnavailable("Airbyte does not answer.")
        return JobState(job_id, connection_id, self.states[job_id]) if job_id in self.states else None

    def newest_ended(self, connection_id: str) -> JobState | None:
        return self.job(connection_id, max(self.states, default=0))


@dataclass
class Desk:
    """A dispatcher, and everything around it."""

    spool: Spool
    starts: Starts = field(default_factory=Starts)
    failed: list[tuple[int | None, str]] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)
    airbyte: Jobs | None = field(default_factory=Jobs)
    now: float = 1000.0

    def deliver(self, *deliveries: Delivery, window_seconds: float = 0.0) -> None:
        self.spool.add(deliveries, self.now, window_seconds)

    def step(self, as_union: bool = False) -> None:
        dispatcher = Dispatcher(self.spool, self.starts, Metrics(), self, as_union, clock=lambda: self.now)
        dispatcher.airbyte = self.airbyte
        asyncio.run(dispatcher.step())

    def open(self, delivery: Delivery, reason: str) -> None:
        self.failed.append((delivery.job_id, reason))

    def close(self, connection_id: str) -> None:
        self.recovered.append(connection_id)

    def outcomes(self) -> list[str | None]:
        return [event.outcome for event in self.spool.events()]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with closing(Spool(tmp_path / "spool.db")) as spool:
        yield Desk(spool)


def success(job_id: int | None = 1, connection_id: str = GOOGLE_ADS) -> Delivery:
    return Delivery(connection_id, job_id, True, digest="words")


def failure(job_id: int = 1, queued: bool = False) -> Delivery:
    return Delivery(GOOGLE_ADS, job_id, False, queued=queued, reason="it broke")


def test_each_sync_is_started_once(desk: Desk) -> None:
    desk.deliver(success(1), success(1), success(2, FACEBOOK_ADS))
    desk.step()
    desk.step()
    assert desk.starts.unions == [[AirbyteSync(GOOGLE_ADS, 1)], [AirbyteSync(FACEBOOK_ADS, 2)]]
    assert [event.flow_run_id for event in desk.spool.events()] == ["run 2", "run 2"]


def test_syncs_that_end_together_are_started_as_one(desk: Desk) -> None:
    desk.deliver(success(1), success(2, FACEBOOK_ADS), window_seconds=30)
    desk.step(as_union=True)
    assert desk.starts.unions == []
    desk.now += 30
    desk.step(as_union=True)
    assert desk.starts.unions == [[AirbyteSync(GOOGLE_ADS, 1), AirbyteSync(FACEBOOK_ADS, 2)]]


def test_while_prefect_is_away_nothing_is_lost(desk: Desk) -> None:
    desk.deliver(success(1))
    desk.starts.error = UpstreamUnavailable("Prefect does not answer.")
    desk.step()
    desk.deliver(success(2))
    desk.step()
    assert desk.outcomes() == [None, None]
    desk.starts.error = None
    desk.step()
    assert desk.starts.unions == [[AirbyteSync(GOOGLE_ADS, 1)], [AirbyteSync(GOOGLE_ADS, 2)]]


def test_what_prefect_refuses_is_tried_again_after_a_while(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.deliver(success(1))
    desk.starts.error = ConfigError("The Prefect server has no deployment x/y.")
    desk.step()
    assert "no deployment x/y" in caplog.text
    desk.starts.error = None
    desk.step()
    assert desk.starts.unions == []
    desk.now += 61
    desk.step()
    assert desk.starts.unions == [[AirbyteSync(GOOGLE_ADS, 1)]]


def test_a_failed_sync_is_told_and_starts_nothing_until_the_next_one_mends_it(desk: Desk) -> None:
    assert desk.airbyte
    desk.airbyte.states = {1: "failed", 2: "succeeded"}
    desk.deliver(failure(1))
    desk.step()
    assert (desk.failed, desk.starts.unions) == ([(1, "it broke")], [])
    desk.deliver(success(2))
    desk.step()
    assert desk.starts.unions == [[AirbyteSync(GOOGLE_ADS, 2)]]
    assert desk.recovered == [GOOGLE_ADS]


@pytest.mark.parametrize("status", ["queued", "pending", "running", "incomplete"])
def test_a_failure_that_is_none_is_not_told(desk: Desk, status: str) -> None:
    assert desk.airbyte
    desk.airbyte.states = {1: status}
    desk.deliver(failure(1))
    desk.step()
    assert (desk.failed, desk.outcomes()) == ([], ["not ended"])
    desk.airbyte.states = {1: "failed"}
    desk.deliver(failure(1))
    desk.step()
    assert desk.failed == [(1, "it broke")], "the same sync may fail after all"


def test_a_failure_that_airbyte_calls_a_success_is_started(desk: Desk) -> None:
    assert desk.airbyte
    desk.airbyte.states = {1: "succeeded"}
    desk.deliver(failure(1))
    desk.step()
    assert (desk.failed, desk.starts.unions) == ([], [[AirbyteSync(GOOGLE_ADS, 1)]])
    desk.deliver(success(1))
    desk.step()
    assert len(desk.starts.unions) == 1


def test_a_failure_that_can_not_be_confirmed_is_told_in_the_end(desk: Desk) -> None:
    desk.deliver(failure(1))
    desk.step()
    assert desk.failed == []
    desk.now += 601
    desk.step()
    ((job_id, reason),) = desk.failed
    assert job_id == 1
    assert "it broke Not confirmed, because Airbyte does not answer" in reason


def test_without_airbytes_api_what_is_said_has_to_do(desk: Desk) -> None:
    desk.airbyte = None
    desk.deliver(failure(1), failure(2, queued=True), success(None))
    desk.step()
    assert [job_id for job_id, _ in desk.failed] == [1]
    assert [[sync.connection_id for sync in union] for union in desk.starts.unions] == [[GOOGLE_ADS]]


def test_a_success_without_a_job_is_the_newest_that_airbyte_knows(desk: Desk) -> None:
    assert desk.airbyte
    desk.deliver(success(None))
    desk.step()
    assert desk.starts.unions == [], "Airbyte does not answer"
    desk.airbyte.states = {41: "succeeded", 42: "succeeded"}
    desk.deliver(success(42))
    desk.now += 15
    desk.step()
    assert desk.starts.unions == [[AirbyteSync(GOOGLE_ADS, 42)]], "one sync, said twice in different words"


def test_a_job_that_airbyte_does_not_know_is_passed_over(desk: Desk) -> None:
    assert desk.airbyte
    desk.airbyte.states = {7: "failed"}
    desk.deliver(failure(1))
    desk.step()
    assert (desk.failed, desk.outcomes()) == ([], ["unknown job"])
