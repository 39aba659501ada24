"""Payments and the history of attendance, against figures worked out by hand from the raw rows beside."""

from __future__ import annotations

import shutil
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from flows.engine.artifacts.manifest_file import manifest_of
from flows.runbook.payroll.gate import without_critical_test
from tests.models.journey import Journey
from tests.support.warehouses.builds import DuckDB

# concert, musician: attended, missed, required, gross, deductions, net, final
FIRST_PAYMENTS = {
    # 80.00 a service: present and late count, excused does not.
    (1, 1): (2, 1, 3, "160.00", "0.00", "160.00", True),
    # A fee of 300.00 less two missed services of 50.25, one of them because nobody recorded it.
    (1, 2): (1, 2, 3, "300.00", "100.50", "199.50", True),
    # Excused counts for a fee; two missed services of 45.00 would be more than the fee of 60.00.
    (1, 3): (1, 2, 3, "60.00", "60.00", "0.00", True),
    # On a salary.
    (1, 4): (2, 1, 3, "0.00", "0.00", "0.00", True),
    # One presence corrected to an absence, one absence to an excuse: 250.00 less 25.10.
    (2, 1): (1, 1, 2, "250.00", "25.10", "224.90", True),
    # The correction replaces two records of one evening: twice 99.99.
    (2, 5): (2, 0, 2, "199.98", "0.00", "199.98", True),
    # One of two services is yet to come: it is not missed, but an excuse for it already counts.
    (3, 1): (1, 0, 2, "80.00", "0.00", "80.00", False),
    (3, 2): (1, 1, 2, "200.00", "20.00", "180.00", False),
    # A concert without services is never final.
    (4, 6): (0, 0, 0, "500.00", "0.00", "500.00", False),
}
# Musician 1's excuse and musician 2's missing record became presences; the contract for concert 4 is gone.
# The absence of musician 1 at concert 3, entered before the presence that was known, came late: no change.
SECOND_PAYMENTS = {
    **{key: payment for key, payment in FIRST_PAYMENTS.items() if key != (4, 6)},
    (1, 1): (3, 0, 3, "240.00", "0.00", "240.00", True),
    (1, 2): (2, 1, 3, "300.00", "50.25", "249.75", True),
}
COUNTS = ("attended_services", "missed_services", "required_services")
AMOUNTS = ("gross_amount", "deductions", "net_amount")


@pytest.mark.parametrize(("step", "expected"), [("first_build", FIRST_PAYMENTS), ("second_build", SECOND_PAYMENTS)])
def test_payments_are_those_worked_out_by_hand(
    step: str, expected: dict[tuple[int, int], tuple[int, int, int, str, str, str, bool]], journey: Journey
) -> None:
    columns = ("concert_id", "musician_id", *COUNTS, *AMOUNTS, "is_final")
    found = {row[:2]: row[2:] for row in getattr(journey, step).table("fct_musician_payment", *columns)}
    assert found == {
        key: (*payment[:3], *(Decimal(amount) for amount in payment[3:6]), payment[6])
        for key, payment in expected.items()
    }


def test_reconciliation_tells_agreement_from_a_missing_record(journey: Journey) -> None:
    agreed = [(1, 1, "equal"), (1, 2, "equal"), (1, 3, "equal"), (1, 4, "equal"), (2, 1, "equal")]
    columns = ("concert_id", "musician_id", "outcome")
    assert journey.first_build.table("fct_payment_reconciliation", *columns) == [
        *agreed,
        (2, 5, "not_recorded"),
    ]
    assert journey.second_build.table("fct_payment_reconciliation", *columns) == [*agreed, (2, 5, "equal")]


def test_a_correction_replaces_what_it_covers_and_keeps_it_on_record(journey: Journey) -> None:
    columns = ("natural_key", "status", "effective_from", "effective_to", "is_current", "is_superseded")
    versions = journey.second_build.table("br_attendance_scd2", *columns)
    seven, twenty_past = datetime(2026, 3, 1, 19), datetime(2026, 3, 1, 19, 20)
    assert [version[1:] for version in versions if version[0] == "22-5"] == [
        ("absent", seven, seven, False, True),
        ("late", twenty_past, twenty_past, False, True),
        ("present", seven, None, True, False),
    ]


def test_a_deleted_musician_stays_known(journey: Journey) -> None:
    musicians = journey.second_build.table("dim_musician", "musician_id", "is_deleted", "is_active")
    assert [musician for musician in musicians if musician[1]] == [(6, True, False)]


def test_all_that_payroll_stands_on_has_a_critical_test(duckdb_journey: Journey) -> None:
    assert without_critical_test(manifest_of(duckdb_journey.warehouse.manifest())) == []


@pytest.fixture
def copy(duckdb_journey: Journey, tmp_path: Path) -> DuckDB:
    """A copy of the second build that a test may damage."""
    assert duckdb_journey.full_refresh
    original = duckdb_journey.warehouse
    shutil.copytree(original.folder, tmp_path / "copy")
    return DuckDB(tmp_path / "copy", environment=original.environment)


def schema_of(warehouse: DuckDB, model: str) -> str:
    return warehouse.manifest()["nodes"][f"model.tributary.{model}"]["schema"]


def test_wrong_payments_fail_the_critical_tests(copy: DuckDB) -> None:
    """A cent too much, no amount, deductions where none may be, more attended than there was, a row twice."""
    payments = f"{schema_of(copy, 'fct_musician_payment')}.fct_musician_payment"
    reconciliation = f"{schema_of(copy, 'fct_payment_reconciliation')}.fct_payment_reconciliation"
    copy.execute(
        f"""
        update {payments} set net_amount = net_amount + 0.01 where contract_id = 2;
        update {payments} set gross_amount = null, net_amount = null where contract_id = 8;
        update {payments} set deductions = 5, net_amount = gross_amount - 5 where contract_id = 1;
        update {payments} set attended_services = 4 where contract_id = 4;
        insert into {payments} select * from {payments} where contract_id = 6;
        update {reconciliation} set outcome = 'different' where concert_id = 1 and musician_id = 1
        """
    )
    finished = copy.dbt("test", "--selector", "critical_tests")
    assert finished.exit_code == 1
    assert {unique_id.split(".")[2] for unique_id in finished.ids("fail")} == {
        "fct_musician_payment_net_is_gross_minus_deductions",
        "fct_musician_payment_deductions_within_gross",
        "fct_musician_payment_no_deductions_when_paid_per_service",
        "fct_musician_payment_attended_within_required",
        "fct_musician_payment_one_per_concert_and_musician",
        "fct_payment_reconciliation_nets_agree_to_the_cent",
        "not_null_fct_musician_payment_gross_amount",
        "not_null_fct_musician_payment_net_amount",
    }


def test_a_damaged_history_fails_its_tests_and_is_mended_by_deleting_the_key(copy: DuckDB) -> None:
    history = f"{schema_of(copy, 'br_attendance_scd2')}.br_attendance_scd2"
    before = copy.rows("br_attendance_scd2")
    copy.execute(
        f"""
        update {history} set effective_to = null, is_current = true, is_superseded = false
        where natural_key = '22-5';
        update {history} set effective_to = effective_from - interval 1 day, is_current = false
        where natural_key = '11-1'
        """
    )
    finished = copy.dbt("test", "--selector", "scd2_tests")
    assert {unique_id.split(".")[2] for unique_id in finished.ids("fail")} == {
        "br_attendance_scd2_one_current_version",
        "br_attendance_scd2_no_overlap",
        "br_attendance_scd2_ends_after_start",
    }

    copy.execute(f"delete from {history} where natural_key in ('22-5', '11-1')")
    copy.build("--select", "br_attendance_scd2", command="run")
    assert copy.rows("br_attendance_scd2") == before


def test_a_log_that_was_loaded_anew_without_a_change_gives_the_history_without_it(copy: DuckDB) -> None:
    """Airbyte's reset empties the log and fills it from a source that may have forgotten some."""
    copy.execute("delete from raw.supabase_attendance where attendance_id = 19")
    copy.build("--select", "br_attendance_scd2", command="run")
    versions = copy.rows("br_attendance_scd2", "natural_key", "status", "is_current")
    assert [version for version in versions if version[0] == "22-5"] == [
        ("22-5", "absent", False),
        ("22-5", "late", True),
    ]
