"""The operations as commands and flows, on one target that is built once: damage it, then see what they do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from flows.__main__ import main
from flows.alerts.incident_store import store_of
from flows.runbook.full_refresh.flow import weekly_full_refresh
from flows.runbook.full_refresh.journal import RefreshJournal
from flows.runbook.kept_tables import KeptTables
from flows.runbook.scd2.flow import RepairReport, scd2_repair
from flows.warehouses.door import open_warehouse
from infrastructure.errors import DbtRunFailed
from infrastructure.workspace import ROOT
from tests.support.lock_holders import lease_of, run_out
from tests.support.prefect_api import SetUpTarget, post
from tests.support.processes import wait_until
from tests.support.versions import PROJECT, Place


@pytest.fixture(scope="module")
def place(prefect_server: str, set_up_target: SetUpTarget) -> Place:
    """Build the project once."""
    place = Place(set_up_target())
    place.load()
    place.build()
    return place


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs a command in this process, which need not start Python for it."""
    # Commands set these for their process.
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    monkeypatch.setenv("PREFECT_CLI_PROMPT", "false")
    return lambda *arguments: CliRunner().invoke(main, [*arguments])


def is_read(gate: Path) -> bool:
    """Say whether somebody waits at a named pipe for what is written to it."""
    try:
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def asked_and_agreed(place: Place, api: str) -> RepairReport:
    """Run the repair as a flow that asks, and answer its form as the UI does."""
    about = {"flow_runs": {"name": {"like_": f"scd2-repair {place.target}"}, "state": {"type": {"any_": ["PAUSED"]}}}}
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(copy_context().run, partial(scd2_repair, place.target, project_dir=PROJECT, mode="ask"))
        wait_until(lambda: run.done() or post(api, "/flow_runs/filter", about), "the run asks", 600)
        assert not run.done(), run.result()
        (paused,) = post(api, "/flow_runs/filter", about)
        post(api, f"/flow_runs/{paused['id']}/resume", {"run_input": {"apply": True, "who": "ann"}})
        return run.result()


def test_two_current_versions_are_repaired_when_somebody_agrees_and_then_tested(
    place: Place, prefect_server: str, command: Callable[..., Result]
) -> None:
    whole = place.checksums()
    place.execute(
        "insert into rate_versions select * from rate_versions where version_id = 'a2'",
        "insert into player_snapshot select * from player_snapshot where player = 'ann'",
    )
    asked = ("scd2-repair", "--project-dir", PROJECT, "--target", place.target)
    shown = command(*asked)
    assert shown.exit_code == 1, shown.output
    assert "2 keys" in shown.stdout
    assert "deleted" in shown.stdout
    report = asked_and_agreed(place, prefect_server)
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
    incident = store_of(place.target, os.environ).read().incidents["full refresh/tables"].incident
    assert incident.title == "The full refresh was undone"
    place.execute("alter table raw.switched_off rename to switch", "update raw.rates set rate = rate / 2")


@pytest.mark.slow
def test_what_a_kill_in_mid_rebuild_leaves_is_put_right_by_the_next_refresh(place: Place, tmp_path: Path) -> None:
    before = place.checksums()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    place.execute(
        "update raw.rates set rate = rate * 2",
        "alter table raw.switch rename to switched_off",
        f"create view raw.switch as select cast(content as bigint) as value from read_text('{gate}')",
    )
    asked = [sys.executable, "-m", "flows", "full-refresh", "--project-dir", PROJECT, "--target", place.target]
    with subprocess.Popen(
        [*asked, "--no-docs"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as run:
        # This opens when dbt reads the view: payments is rebuilt by then, and totals is being built.
        wait_until(lambda: is_read(gate) or run.poll() is not None, "totals is being built", 600)
        assert run.poll() is None
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    run_out(lease_of(place.target))
    place.execute("drop view raw.switch", "alter table raw.switched_off rename to switch")
    assert place.checksums() != before, "the kill came after something was rebuilt"
    place.execute("update raw.rates set rate = rate / 2")

    report = weekly_full_refresh(place.target, project_dir=PROJECT)
    assert "interrupted while rebuilding" in report.steps[0]
    assert place.checksums() == before
    assert report.docs
    assert "<html" in report.docs.read_text(encoding="utf-8")[:2000].lower()
    again = weekly_full_refresh(place.target, project_dir=PROJECT, docs=False)
    assert not any("put back" in step.lower() for step in again.steps)
    assert place.checksums() == before
    assert len([name for name in place.kept() if name.startswith("r2")]) == 2 * 4


def test_a_wrong_amount_and_a_broken_version_fail_the_audit_and_what_changed_is_seen(
    place: Place, tmp_path: Path, command: Callable[..., Result]
) -> None:
    settings = tmp_path / "audit.yml"
    check = {"name": "pay", "calculated": "payments", "recorded": "paid", "key": ["player"], "amounts": ["amount"]}
    settings.write_text(json.dumps({"accuracy": [check]}))
    asked = ("--project-dir", PROJECT, "--target", place.target)
    before = tmp_path / "before.json"
    saved = command("compare", *asked, "--save", str(before))
    assert saved.exit_code == 0, saved.output
    place.execute(
        "update raw.paid set amount = amount + 0.02 where player = 'bob'",
        "update rate_versions set valid_to = '2026-01-15' where version_id = 'a1'",
    )
    page = tmp_path / "audit.html"
    audited = command("audit", *asked, "--settings", str(settings), "--output", str(page), "--json")
    assert audited.exit_code == 1, audited.output
    sections = {section["title"]: section for section in json.loads(audited.stdout)["sections"]}
    assert [(row["key"], row["fault"]) for row in sections["Integrity of versions"]["rows"]] == [
        ("ann, gig", "a version ends before the next one begins")
    ]
    (wrong,) = sections["Accuracy: pay"]["rows"]
    assert wrong == {"player": "bob", "outcome": "different", "amount": "35.35 ≠ 35.37 (-0.02)"}
    assert sections["Slow models of the last 30 days"]["outcome"] == "ok"
    assert "35.35 ≠ 35.37" in page.read_text(encoding="utf-8")

    place.execute(
        "update raw.paid set amount = amount - 0.02 where player = 'bob'",
        "update rate_versions set valid_to = '2026-02-01' where version_id = 'a1'",
        "insert into totals select 1, 2",
    )
    changed = command("compare", *asked, "--before", str(before), "--json")
    assert changed.exit_code == 1, changed.output
    told = {(one["what"], one["name"]) for one in json.loads(changed.stdout)["differences"] if one["counts"]}
    assert told == {("rows", "totals"), ("sum", "totals.total")}


def test_what_a_kill_in_mid_restore_leaves_is_put_right_by_the_next_run(
    set_up_target: SetUpTarget, postgres_database: dict[str, Any]
) -> None:
    """The restore waits for a table that this test has locked, with one table already back, and is killed there."""
    import psycopg2

    place = postgres_place(set_up_target, postgres_database)
    with open_warehouse(place.profile) as tables:
        tables.make_schema(place.schema)
        names = [tables.placed(place.schema, name) for name in ("orders", "prices")]
        for name in names:
            tables.execute(f"create table {name} as select 1 as id, 10.10 as amount")
        journal = RefreshJournal(tables, KeptTables(tables, place.profile), place.target)
        refresh, _ = journal.back_up([("orders", names[0]), ("prices", names[1])], [], 7)
        journal.set_state(refresh, "rebuilding")
        for name in names:
            tables.execute(f"update {name} set amount = 99")

        def amounts() -> list[Any]:
            return [row["amount"] for name in names for row in tables.rows(f"select amount from {name}")]

        waiting = f"select 1 as one from pg_locks where not granted and relation = to_regclass('{place.schema}.prices')"
        with closing(psycopg2.connect(**postgres_database)) as other, other.cursor() as cursor:
            cursor.execute(f"lock table {place.schema}.prices in exclusive mode")
            asked = [sys.executable, "-m", "flows", "full-refresh", "--recover", "--target", place.target]
            with subprocess.Popen(asked, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
                wait_until(lambda: tables.rows(waiting) or run.poll() is not None, "the restore is under way", 600)
                assert run.poll() is None
                run.kill()
                run.wait()
        run_out(lease_of(place.target))
        left = journal.unfinished()
        assert left
        assert left.state == "restoring"
        assert [int(amount) for amount in amounts()] == [99, 99], "all or nothing"

        report = weekly_full_refresh(place.target, project_dir=PROJECT, recover=True)
        assert "interrupted while restoring" in report.steps[0]
        assert [str(amount) for amount in amounts()] == ["10.10", "10.10"]
        assert journal.unfinished() is None


def postgres_place(set_up_target: SetUpTarget, database: dict[str, Any]) -> Place:
    """Return a target in a schema of its own, with nothing in it."""
    address = {name: database[name] for name in ("host", "port", "user", "dbname")}
    settings = {"warehouse": "postgres", "schema": f"kept_{uuid4().hex[:8]}", "threads": 1, **address}
    password = {"OPERATIONS_PASSWORD": database["password"] or "none"}
    return Place(set_up_target({**settings, "password_env": "OPERATIONS_PASSWORD"}, password))
