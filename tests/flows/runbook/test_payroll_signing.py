"""Signing, exporting and paying on a real Prefect server and warehouse; what is signed is made by hand, not by dbt."""

from __future__ import annotations

import csv
import hashlib
import json
import threading
from contextvars import copy_context
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pytest
from click.testing import CliRunner
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow

from flows.__main__ import main
from flows.runbook.payroll import flow as payroll
from flows.runbook.payroll import ledger as kinds
from flows.runbook.payroll.desk import PayrollDesk, PrePayroll, current_flow_run_id
from flows.runbook.payroll.export import changed_files
from flows.runbook.payroll.flow import Adjustment, post_payroll
from flows.runbook.payroll.ledger import Entry
from flows.runbook.payroll.signoff_form import Asked, waiting
from infrastructure.errors import ConfigError, PayrollStopped
from tests.support.payroll_house import AMOUNTS, CONCERT, House, graph_in, house_on
from tests.support.prefect_api import SetUpTarget
from tests.support.processes import wait_until

TOTAL = sum(map(Decimal, AMOUNTS), Decimal(0))
DAY = timedelta(hours=24)


HOUSES: dict[str, House] = {}


@pytest.fixture
def house(prefect_server: str, set_up_target: SetUpTarget, monkeypatch: pytest.MonkeyPatch) -> House:
    found = house_on(set_up_target())
    HOUSES[found.target] = found
    # dbt knows no project of this house.
    monkeypatch.setattr(payroll, "_manifest", lambda *_: graph_in())
    return found


@flow(name="signing")
def signing(target: str, root: str, lasts_seconds: float = DAY.total_seconds()) -> PrePayroll | None:
    """Do what pre_payroll does, with checks that always find all well."""
    house, lasts = HOUSES[target], timedelta(seconds=lasts_seconds)
    desk = PayrollDesk(CONCERT, house.target, house.profile, house.graph, lasts, poll_seconds=1)
    before = desk.checked_before()
    payments, found, at = before or (house.payments(), "all is well", kinds.now())
    if before is None:
        with house.ledger() as ledger:
            ledger.make()
            ledger.add(Entry(CONCERT, current_flow_run_id(), kinds.CHECKED, checksum=payments.checksum, note=found))
    if not desk.collect(payments, found, at + lasts):
        return None
    return desk.finish(payments, Path(root))


class Underway:
    """A flow run in a thread that waits for people."""

    def __init__(self, house: House, root: Path, lasts: timedelta = DAY) -> None:
        self._target = house.target
        self._state: State[Any] | None = None
        # Prefect's settings of the moment are context variables.
        work = (self._run, str(root), lasts.total_seconds())
        self._thread = threading.Thread(target=copy_context().run, args=work, daemon=True)
        self._thread.start()

    def _run(self, root: str, lasts_seconds: float) -> None:
        self._state = signing(self._target, root, lasts_seconds, return_state=True)

    def asks(self, *roles: str) -> str:
        """Wait until the run asks for these roles, and return its id."""

        def asked() -> list[Asked]:
            assert self._state is None, f"the run ended: {self._state}"
            return [each for each in waiting(self._target) if each.roles == roles]

        wait_until(asked, f"the run asks for {roles}")
        return str(asked()[0].flow_run_id)

    def ended(self) -> Any:
        """Return what the run came to."""
        self._thread.join(120)
        assert self._state is not None, "the run did not end"
        return self._state.result(raise_on_failure=False)


def sign(run: str, role: str, who: str, *options: str) -> str:
    done = CliRunner().invoke(main, ["payroll", "sign", "--run", run, "--role", role, "--who", who, *options])
    assert done.exit_code == 0, done.output
    return done.output


def signed_and_exported(house: House, root: Path) -> PrePayroll:
    """Have three people sign in a run of its own."""
    underway = Underway(house, root)
    said = sign(underway.asks("data engineer", "finance", "manager"), "manager", "Grace Hopper", "--comment", "go")
    assert said == "Signed as manager. Still to sign: data engineer, finance.\n"
    sign(underway.asks("data engineer", "finance"), "data engineer", "Ada Lovelace")
    sign(underway.asks("finance"), "finance", "Mary Jackson")
    done = underway.ended()
    assert isinstance(done, PrePayroll), done
    return done


def test_what_three_people_signed_is_exported_to_the_cent_archived_and_paid_once(house: House, tmp_path: Path) -> None:
    done = signed_and_exported(house, tmp_path)
    assert (done.musicians, done.net_total) == (4, TOTAL) and str(done.net_total) == "9007199254740994.46"

    with (done.folder / "payroll-concert-7.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["full_name"], row["net_amount"]) for row in rows] == [
        ("Amy Beach", "9007199254740993.01"),
        ("Lili Boulanger", "1.15"),
        ("Nadia Boulanger", "0.20"),
        ("Clara Weiß", "0.10"),
    ], "ordered by last and first name"
    assert rows[2] == {
        "full_name": "Nadia Boulanger",
        "email": "",
        "concert": 'Spring, "and" more',
        "concert_date": "2026-03-01",
        "pay_type": "per_service",
        "net_amount": "0.20",
        "calculated_at": "2026-03-02 04:05:06",
    }
    parquet = duckdb.sql(f"select * from '{done.folder}/payroll-concert-7.parquet'")
    assert dict(zip(parquet.columns, map(str, parquet.types), strict=True))["net_amount"] == "DECIMAL(18,2)"
    assert [row[parquet.columns.index("net_amount")] for row in parquet.fetchall()] == [
        Decimal(row["net_amount"]) for row in rows
    ]
    sums = dict(reversed(line.split("  ")) for line in (done.folder / "SHA256SUMS").read_text().splitlines())
    for name in ("payroll-concert-7.csv", "payroll-concert-7.parquet", "manifest.json"):
        assert hashlib.sha256((done.folder / name).read_bytes()).hexdigest() == sums[name]
        assert (done.folder / name).stat().st_mode & 0o077 == 0, "nobody else may read names and pay"
    manifest = json.loads((done.folder / "manifest.json").read_text())
    assert manifest["net_total"] == str(TOTAL)
    assert [(each["role"], each["who"], each["comment"]) for each in manifest["signatures"]] == [
        ("manager", "Grace Hopper", "go"),
        ("data engineer", "Ada Lovelace", ""),
        ("finance", "Mary Jackson", ""),
    ]
    with house.ledger() as ledger:
        archived = ledger.tables.rows(f"select sum(net_amount) as total from {done.archive}")
        assert archived == [{"total": TOTAL}]

    trial = post_payroll(CONCERT, house.target, dry_run=True)
    assert trial.is_dry_run and house.kinds()[-1] == kinds.EXPORTED
    adjusted = Adjustment(musician_id=1, amount=Decimal("-0.30"), reason="hire")
    paid = post_payroll(CONCERT, house.target, None, date(2026, 3, 5), "bea", [adjusted], ["paid a day late"])
    assert (paid.paid_total, paid.payment_date) == (TOTAL - Decimal("0.30"), date(2026, 3, 5))
    with house.ledger() as ledger:
        run, entries = ledger.run(CONCERT), ledger.entries(CONCERT)
    assert run and (run.paid_total, run.musicians, run.recorded_by) == (Decimal("9007199254740994.16"), 4, "bea")
    assert [(entry.kind, entry.amount, entry.note) for entry in entries[-3:]] == [
        (kinds.PAID, TOTAL - Decimal("0.30"), ""),
        (kinds.ADJUSTMENT, Decimal("-0.30"), "musician 1: hire"),
        (kinds.EXCEPTION, Decimal("0.00"), "paid a day late"),
    ]
    with pytest.raises(PayrollStopped, match=r"Concert 7 has been paid: 9007199254740994.16 on 2026-03-05"):
        post_payroll(CONCERT, house.target)
    with pytest.raises(PayrollStopped, match="has been paid"):
        signing(house.target, str(tmp_path))


def test_the_same_person_is_refused_and_asked_again_and_a_rejection_ends_it(house: House, tmp_path: Path) -> None:
    underway = Underway(house, tmp_path)
    run = underway.asks("data engineer", "finance", "manager")
    sign(run, "finance", "Ada Lovelace")
    underway.asks("data engineer", "manager")
    early = CliRunner().invoke(main, ["payroll", "sign", "--run", run, "--role", "manager", "--who", "ada  LOVELACE"])
    assert early.exit_code == 2 and "three roles are three persons" in early.output
    twice = CliRunner().invoke(main, ["payroll", "sign", "--run", run, "--role", "finance", "--who", "Mary Jackson"])
    assert twice.exit_code == 2 and "does not wait for 'finance'" in twice.output
    # The form in the UI knows nothing of that, so the run itself has to refuse.
    with get_client(sync_client=True) as client:
        given = {"role": "manager", "who": "Lovelace, Ada", "decision": "approve", "comment": ""}
        client.resume_flow_run(UUID(run), run_input=given)
    wait_until(lambda: kinds.REFUSED in house.kinds(), "the second signature is refused")
    underway.asks("data engineer", "manager")
    sign(run, "manager", "Grace Hopper", "--reject", "--comment", "the fee of musician 3 is wrong")
    error = underway.ended()
    assert isinstance(error, PayrollStopped)
    assert str(error) == (
        "Payroll of concert 7 was rejected as manager: the fee of musician 3 is wrong. Nothing was exported."
    )
    assert house.kinds() == [kinds.CHECKED, kinds.SIGNED, kinds.REFUSED, kinds.REJECTED]
    assert not list(tmp_path.iterdir())
    with pytest.raises(PayrollStopped, match="was not signed and exported, so it must not be paid"):
        post_payroll(CONCERT, house.target)
    # What was signed before a rejection is signed anew.
    again = Underway(house, tmp_path)
    sign(again.asks("data engineer", "finance", "manager"), "manager", "Grace Hopper", "--reject", "--comment", "no")
    assert isinstance(again.ended(), PayrollStopped)


def test_data_that_changes_while_it_is_signed_is_signed_anew_and_never_paid(house: House, tmp_path: Path) -> None:
    underway = Underway(house, tmp_path)
    run = underway.asks("data engineer", "finance", "manager")
    sign(run, "finance", "Ada Lovelace")
    underway.asks("data engineer", "manager")
    house.sql("update gold.fct_musician_payment set net_amount = 1.16, gross_amount = 1.16 where musician_id = 4")
    sign(run, "manager", "Grace Hopper")
    assert underway.ended() is None
    assert house.kinds()[-1] == kinds.VOID and not list(tmp_path.iterdir())

    done = signed_and_exported(house, tmp_path)
    assert done.net_total == TOTAL + Decimal("0.01")
    house.sql("update gold.dim_musician set email = 'thief@example.org' where musician_id = 3")
    with pytest.raises(PayrollStopped, match="have changed since they were signed and exported"):
        post_payroll(CONCERT, house.target)
    house.sql("update gold.dim_musician set email = 'amy@example.org' where musician_id = 3")
    # A rebuild that changes nothing but its time is no change.
    house.sql("update gold.fct_musician_payment set calculated_at = timestamp '2026-03-03 00:00:00'")
    file = done.folder / "payroll-concert-7.csv"
    before = file.read_bytes()
    file.write_bytes(before.replace(b"0.20", b"9.20"))
    with pytest.raises(PayrollStopped, match=r"was changed after it was signed: payroll-concert-7.csv"):
        post_payroll(CONCERT, house.target)
    file.write_bytes(before)
    with pytest.raises(ConfigError, match="Concert 7 pays no musician 99"):
        post_payroll(CONCERT, house.target, adjustments=[Adjustment(musician_id=99, amount=Decimal(1), reason="?")])
    assert post_payroll(CONCERT, house.target).paid_total == TOTAL + Decimal("0.01")


def test_nobody_can_sign_when_the_time_is_over(house: House, tmp_path: Path) -> None:
    underway = Underway(house, tmp_path, lasts=timedelta(seconds=2))
    error = underway.ended()
    # Either this process or the server notices first.
    assert isinstance(error, Exception) and ("in time" in str(error) or "never resumed" in str(error)), error
    assert not waiting(house.target) and not list(tmp_path.iterdir())


def test_a_deployments_run_is_suspended_and_survives_its_process(house: House, tmp_path: Path) -> None:
    deployed = signing.with_options(name=f"signing-{house.target}")
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(flow_id=client.create_flow(deployed), name="prod")
        given = {"target": house.target, "root": str(tmp_path)}
        started = client.create_flow_run_from_deployment(deployment, parameters=given)

        def process() -> State[Any]:
            """Do what a worker's process does, from the beginning of the flow."""
            try:
                return run_flow(deployed, client.read_flow_run(started.id), parameters=given, return_type="state")
            except Pause as pause:
                # On which a worker's process ends.
                return pause.state

        people = {"finance": "Ada Lovelace", "manager": "Grace Hopper", "data engineer": "Mary Jackson"}
        for role, who in people.items():
            state = process()
            assert state.name == "Suspended", state
            sign(str(started.id), role, who)
        state = process()
    done = state.result()
    assert isinstance(done, PrePayroll) and done.net_total == TOTAL
    assert house.kinds() == [kinds.CHECKED, *[kinds.SIGNED] * 3, kinds.EXPORTED], "nothing was done twice"


def test_the_archive_of_another_day_and_the_export_of_the_same_data_are_kept(house: House, tmp_path: Path) -> None:
    first = signed_and_exported(house, tmp_path)
    # The signatures are of this data, and are good for a day: nobody is asked again.
    again = signing(house.target, str(tmp_path))
    assert again is not None and (again.folder, again.archive) == (first.folder, first.archive)
    assert changed_files(first.folder, first.checksum) == []
    # Another concert's payment changes the table: the archive of this day stays as it was.
    house.sql(
        "insert into gold.fct_musician_payment select * replace (8 as concert_id, 'k9' as payment_key) "
        "from gold.fct_musician_payment where musician_id = 1"
    )
    third = signing(house.target, str(tmp_path))
    assert third is not None and third.archive == first.archive[:-1] + '_2"'
    with house.ledger() as ledger:
        count = ledger.tables.rows(f"select count(*) as n from {first.archive}")
    assert count == [{"n": 4}]
