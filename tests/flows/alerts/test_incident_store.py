"""What is told of an incident over time, and that many processes can write it down at once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.alerts.incident import Incident
from flows.alerts.incident_store import Entries, IncidentStore, Notice, file_lock, mark_told, notice_for, record
from flows.engine.artifacts.results import FailingRows
from infrastructure.workspace import ROOT

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(hours=24)
FAILED = Incident("dbt/model.a.b", "error", "b failed", "no column x in line 7", "prod")
WARNED = Incident("dbt/test.a.t", "warning", "t warns: 5 rows", "Got 5 results", "prod", count=5)


def notice(entries: Entries, now: datetime = NOW, destination: str = "team") -> Notice:
    return notice_for(entries, "prod", destination, lambda _: True, now, DAY)


def tell(entries: Entries, now: datetime = NOW, destination: str = "team") -> dict[str, int]:
    """Tell a destination what it is owed; return how many incidents it was told in which way."""
    found = notice(entries, now, destination)
    mark_told(entries, destination, found, now)
    ways = ("new", "changed", "still", "recovered", "quiet")
    return {way: len(getattr(found, way)) for way in ways if getattr(found, way)}


def told_after(*versions: Incident) -> list[dict[str, int]]:
    entries = Entries()
    said: list[dict[str, int]] = []
    for version in versions:
        record(entries, [version], [], NOW)
        said.append(tell(entries))
    return said


def test_an_error_is_told_again_when_it_says_something_else_numbers_aside() -> None:
    same, other = replace(FAILED, text="no column x in line 8"), replace(FAILED, text="no table y")
    assert told_after(FAILED, same, other, other) == [{"new": 1}, {"quiet": 1}, {"changed": 1}, {"quiet": 1}]


def test_an_incident_that_becomes_worse_is_told_again() -> None:
    assert told_after(FAILED, replace(FAILED, severity="critical")) == [{"new": 1}, {"changed": 1}]


def test_a_test_that_fails_for_twice_as_many_rows_is_told_again() -> None:
    failing = [replace(FAILED, count=count) for count in (10, 19, 20, 30, 40)]
    assert told_after(*failing) == [{"new": 1}, {"quiet": 1}, {"changed": 1}, {"quiet": 1}, {"changed": 1}]


def test_a_warning_is_told_when_it_grows_at_all_measured_from_its_lowest() -> None:
    warning = [replace(WARNED, count=count) for count in (5, 5, 3, 4, 4)]
    assert told_after(*warning) == [{"new": 1}, {"quiet": 1}, {"quiet": 1}, {"changed": 1}, {"quiet": 1}]


def test_what_stays_open_is_told_again_after_a_day_and_a_warning_is_not() -> None:
    entries = Entries()
    record(entries, [FAILED, WARNED], [], NOW)
    assert tell(entries) == {"new": 2}
    assert tell(entries, NOW + timedelta(hours=23)) == {"quiet": 2}
    assert tell(entries, NOW + DAY) == {"still": 1, "quiet": 1}
    assert tell(entries, NOW + DAY + timedelta(hours=1)) == {"quiet": 2}


def test_every_destination_is_told_on_its_own_and_an_incident_is_kept_until_all_know_it_is_over() -> None:
    entries = Entries()
    record(entries, [FAILED], [], NOW)
    assert tell(entries) == {"new": 1}
    assert tell(entries, destination="on-call") == {"new": 1}
    record(entries, [], [FAILED.key], NOW)
    assert tell(entries) == {"recovered": 1}
    assert tell(entries, destination="on-call") == {"recovered": 1}
    assert entries.incidents == {}


def test_what_comes_back_before_its_end_was_told_is_the_same_incident() -> None:
    entries = Entries()
    record(entries, [FAILED], [], NOW)
    tell(entries)
    record(entries, [], [FAILED.key], NOW + DAY / 2)
    record(entries, [FAILED], [], NOW + DAY / 2)
    assert tell(entries, NOW + DAY / 2) == {"quiet": 1}
    assert entries.incidents[FAILED.key].opened_at == "2026-11-21T12:00:00+00:00"


def test_a_book_gives_back_what_was_written_and_survives_a_file_that_is_none(tmp_path: Path) -> None:
    store = IncidentStore(tmp_path / "alerts" / "prod.json")
    rows = replace(FAILED, failing_rows=FailingRows(("a",), (("1",),)), owners=("Payroll",))
    with store.edit() as entries:
        record(entries, [rows], [], NOW)
        tell(entries)
        written = dict(entries.incidents)
    assert store.read().incidents == written
    store.path.write_text("{")
    assert store.read().incidents == {}
    assert store.path.with_suffix(".unreadable").exists()


def test_half_a_character_in_an_error_is_no_reason_to_keep_silent(tmp_path: Path) -> None:
    store = IncidentStore(tmp_path / "prod.json")
    with store.edit() as entries:
        record(entries, [replace(FAILED, text="caf\udce9")], [], NOW)
    assert store.read().incidents[FAILED.key].incident.text == "caf?"


def test_ten_thousand_incidents_are_a_file_of_a_few_megabytes(tmp_path: Path) -> None:
    store = IncidentStore(tmp_path / "prod.json")
    with store.edit() as entries:
        record(entries, [replace(FAILED, key=f"dbt/{n}", text="x" * 9000) for n in range(10_000)], [], NOW)
    assert len(store.read().incidents) == 10_000
    assert store.path.stat().st_size < 10_000_000


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from flows.alerts.incident_store import IncidentStore, record
from flows.alerts.incident import Incident
store, name = IncidentStore(Path(sys.argv[1])), sys.argv[2]
for number in range(20):
    with store.edit() as entries:
        record(entries, [Incident(f"{name}/{number}", "error", "x")], [], datetime.now(UTC))
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "prod.json")]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(IncidentStore(tmp_path / "prod.json").read().incidents) == 60


def test_a_lock_that_somebody_holds_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with (
        file_lock(tmp_path / "lock", 1.0),
        pytest.raises(TimeoutError, match="locked by another process"),
        file_lock(tmp_path / "lock", 0.05),
    ):
        pass
