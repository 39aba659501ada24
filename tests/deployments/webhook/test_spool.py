"""What is kept on disk: each sync once, whatever dies."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from deployments.webhook.inbox.delivery import Delivery
from deployments.webhook.inbox.spool import NOT_ENDED, Spool, SpooledDelivery
from infrastructure.errors import ConfigError
from tests.support.webhook.deliveries import FACEBOOK_ADS, GOOGLE_ADS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "webhook" / "spool.db"


def success(job_id: int = 1, connection_id: str = GOOGLE_ADS) -> Delivery:
    return Delivery(connection_id, job_id, True)


def failure(job_id: int = 1) -> Delivery:
    return Delivery(GOOGLE_ADS, job_id, False)


def jobs(batches: list[list[SpooledDelivery]]) -> list[list[int | None]]:
    return [[event.delivery.job_id for event in batch] for batch in batches]


def test_a_sync_is_stored_once_however_often_it_is_delivered(path: Path) -> None:
    with closing(Spool(path)) as spool:
        assert spool.add([success(1), success(1), success(2)], now=0) == ["accepted", "duplicate", "accepted"]
    with closing(Spool(path)) as spool:
        assert spool.add([success(1)], now=1) == ["duplicate"]
        assert jobs(spool.take(now=1, as_union=False)) == [[1], [2]]
        spool.finish(spool.events(), "started", now=2)
        assert spool.add([success(1)], now=10_000) == ["duplicate"], "it stays known when it is dealt with"
        assert spool.take(now=10_000, as_union=False) == []


def test_the_same_words_without_a_job_are_one_delivery_for_a_while(path: Path) -> None:
    words = Delivery(GOOGLE_ADS, None, True, digest="of the body")
    with closing(Spool(path)) as spool:
        assert spool.add([words, words], now=0) == ["accepted", "duplicate"]
        assert spool.add([words], now=300) == ["duplicate"]
        assert spool.add([words], now=3600) == ["accepted"], "the next sync may have moved as many rows"
        assert spool.take(now=3600, as_union=False) == [], "which job it is has to be found out first"
        assert len(spool.to_confirm(now=3600)) == 2


def test_what_finishes_within_the_window_is_one_run(path: Path) -> None:
    with closing(Spool(path)) as spool:
        spool.add([success(1)], now=0, window_seconds=60)
        spool.add([success(2, FACEBOOK_ADS)], now=50, window_seconds=60)
        assert spool.take(now=59, as_union=True) == []
        assert jobs(spool.take(now=60, as_union=True)) == [[1, 2]]
        spool.add([success(3)], now=61, window_seconds=60)
        # Before the first run is started, the process dies.
    with closing(Spool(path)) as spool:
        assert jobs(spool.take(now=70, as_union=True)) == [[1, 2]], "who runs together is decided once"
        assert jobs(spool.take(now=121, as_union=True)) == [[1, 2], [3]]


def test_what_is_postponed_comes_back_with_its_attempts(path: Path) -> None:
    with closing(Spool(path)) as spool:
        spool.add([success()], now=0)
        (batch,) = spool.take(now=0, as_union=False)
        spool.postpone(batch, due_at=60)
        assert spool.take(now=59, as_union=False) == []
        assert [event.attempts for batch in spool.take(now=60, as_union=False) for event in batch] == [1]
        assert spool.backlog().waiting == 1
        assert spool.backlog().next_due_at == 60


def test_a_failure_that_was_none_yet_may_still_come(path: Path) -> None:
    """Airbyte says `success: false` of a sync that waits, and again if that sync fails."""
    with closing(Spool(path)) as spool:
        assert spool.add([failure()], now=0) == ["accepted"]
        spool.finish(spool.to_confirm(now=0), NOT_ENDED, now=1)
        assert spool.to_confirm(now=1) == []
        assert spool.add([failure()], now=2) == ["accepted"]
        (event,) = spool.to_confirm(now=2)
        spool.finish([event], "alerted", now=3)
        assert spool.add([failure()], now=4) == ["duplicate"]
        assert spool.add([success()], now=5) == ["accepted"], "how a sync ended is part of what it is"


def test_a_delivery_that_turns_out_to_be_a_known_sync_starts_nothing_more(path: Path) -> None:
    with closing(Spool(path)) as spool:
        spool.add([success(5), Delivery(GOOGLE_ADS, None, True, digest="x")], now=0)
        (event,) = spool.to_confirm(now=0)
        spool.resolve(event, success(5), "resolved", now=1)
        assert jobs(spool.take(now=1, as_union=False)) == [[5]]
        assert spool.to_confirm(now=100) == []


def test_it_is_known_whether_people_think_that_a_connection_fails(path: Path) -> None:
    with closing(Spool(path)) as spool:
        assert not spool.had_failed(GOOGLE_ADS)
        spool.add([failure(1)], now=0)
        spool.finish(spool.to_confirm(now=0), "alerted", now=1)
        assert spool.had_failed(GOOGLE_ADS)
        assert not spool.had_failed(FACEBOOK_ADS)
        spool.add([success(2)], now=2)
        spool.finish(spool.take(now=2, as_union=False)[0], "started", now=3, flow_run_id="run")
        assert not spool.had_failed(GOOGLE_ADS)


def test_old_events_are_dropped_and_open_ones_never(path: Path) -> None:
    with closing(Spool(path)) as spool:
        spool.add([success(1), success(2)], now=0)
        spool.finish(spool.take(now=0, as_union=False)[0], "started", now=1)
        assert spool.prune(before=1_000_000) == 1
        assert [event.delivery.job_id for event in spool.events()] == [2]


WRITER = """
import sys
from pathlib import Path
from deployments.webhook.inbox.delivery import Delivery
from deployments.webhook.inbox.spool import Spool
spool = Spool(Path(sys.argv[1]))
for job in range(1, 100000):
    spool.add([Delivery(sys.argv[2], job, True)], now=0)
    print(job, flush=True)
"""


def test_what_was_accepted_outlives_kill_9(path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path, GOOGLE_ADS], stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    accepted = [int(writer.stdout.readline()) for _ in range(50)]
    writer.send_signal(signal.SIGKILL)
    accepted += [int(line) for line in writer.communicate()[0].splitlines() if line.strip()]
    with closing(Spool(path)) as spool:
        kept = [job for batch in jobs(spool.take(now=0, as_union=False)) for job in batch]
    assert set(accepted) <= set(kept)
    assert len(kept) <= len(accepted) + 1


def test_nobody_else_can_read_what_was_delivered_nor_what_an_older_version_left_open(path: Path) -> None:
    before = os.umask(0o022)
    try:
        with closing(Spool(path)) as spool:
            spool.add([success()], now=0)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
            assert modes == {"spool.db": 0o600, "spool.db-wal": 0o600, "spool.db-shm": 0o600}
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            for file in path.parent.iterdir():
                file.chmod(0o644)
            with closing(Spool(path)) as again:
                assert again.events() == spool.events()
                assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    finally:
        os.umask(before)


def test_every_commit_waits_for_the_disk(path: Path) -> None:
    """The two settings without which a power cut takes what was accepted."""
    with closing(Spool(path)) as spool:
        connection = spool._connection
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
        assert connection.execute("pragma synchronous").fetchone() == (2,)


def test_a_place_that_can_not_be_used_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="TRIBUTARY_WEBHOOK_SPOOL"):
        Spool(tmp_path / "file" / "spool.db")
    with closing(sqlite3.connect(tmp_path / "newer.db")) as newer:
        newer.execute("pragma user_version = 99")
    with pytest.raises(ConfigError, match="version 99"):
        Spool(tmp_path / "newer.db")
