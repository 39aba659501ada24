"""The operations as commands and flows, on one target that is built once: damage it, then see what they do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.alerts.book import book_of
from flows.operations.full_refresh import weekly_full_refresh
from flows.operations.scd2_repair import scd2_repair
from infrastructure.errors import DbtRunFailed, RefreshUndone
from infrastructure.targets import ROOT
from tests.conftest import SetUpTarget
from tests.flows.operations.versions import PROJECT, Place


@pytest.fixture(scope="module")
def place(prefect_server: str, set_up_target: SetUpTarget) -> Place:
    """Build the project once."""
    place = Place(set_up_target())
    place.load()
    place.build()
    return place


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "flows", *arguments]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=os.environ)


def test_two_current_versions_are_repaired_and_tested(place: Place) -> None:
    whole = place.checksums()
    place.execute(
        "insert into rate_versions select * from rate_versions where version_id = 'a2'",
        "insert into player_snapshot select * from player_snapshot where player = 'ann'",
    )
    asked = ("scd2-repair", "--project-dir", PROJECT, "--target", place.target)
    shown = command(*asked)
    assert shown.returncode == 1
    assert "2 keys" in shown.stdout
    assert "deleted" in shown.stdout
    report = scd2_repair(place.target, project_dir=PROJECT, mode="apply")
    assert report.outcome == "applied"
    assert report.tests
    assert {node.name.partition("_")[0]: node.outcome for node in report.tests.nodes} == {
        "one": "succeeded",
        "unique": "succeeded",
    }
    assert place.checksums() == whole


def test_a_build_that_fails_in_the_middle_of_a_refresh_leaves_the_old_tables(place: Place) -> None:
    before = place.checksums()
    # What is rebuilt before the failure is different, so that it can be seen to come back.
    place.execute("update raw.rates set rate = rate * 2", "alter table raw.switch rename to switched_off")
    with pytest.raises(DbtRunFailed, match=r"for 1 of .*totals"):
        weekly_full_refresh(place.target, project_dir=PROJECT, docs=False)
    assert place.checksums() == before
    assert place.rows("select sum(amount) as total from payments_seen") == place.rows(
        "select sum(amount) as total from payments"
    )
    assert [name for name in place.kept() if name.startswith("r2")] == []
    incident = book_of(place.target, os.environ).read().incidents["full refresh/tables"].incident
    assert incident.title == "The full refresh was undone"
    place.execute("alter table raw.switched_off rename to switch")


def test_tables_that_differ_more_than_is_allowed_are_undone(place: Place, tmp_path: Path) -> None:
    before = place.checksums()
    strict = tmp_path / "refresh.yml"
    strict.write_text("tolerances: {default: {rows_percent: 0}, payments: {sums_percent: 1}}")
    with pytest.raises(RefreshUndone, match=r"payments: sum of amount from 55\.\d+ to 111\.\d+ \(allowed: ± 1 %\)"):
        weekly_full_refresh(place.target, project_dir=PROJECT, settings=str(strict), docs=False)
    assert place.checksums() == before
    place.execute("update raw.rates set rate = rate / 2")
