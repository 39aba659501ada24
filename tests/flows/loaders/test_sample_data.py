"""Sample data is the same for the same seed, looks like what Airbyte loads, and adds up to the cent."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flows.loaders.sample_data import SampleDataResult, write_sample_data
from flows.loaders.sample_data.sizes import sizes_for
from flows.loaders.sample_data.tables import TABLES
from flows.warehouses.door import open_warehouse
from flows.warehouses.raw_tables import RawTable
from infrastructure.errors import ConfigError
from tests.support.raw_data import RawData, duckdb_raw_in

ROOT = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 11, 20, 15, 4, 5)
CENT = Decimal("0.01")


def write(raw: RawData, rows: int, seed: int = 42, now: datetime | None = NOW) -> SampleDataResult:
    return write_sample_data(raw.profile, rows, seed, now, raw.raw_schema)


def everything(raw: RawData) -> dict[str, list[tuple[Any, ...]]]:
    return {table.name: raw.rows(table.name, ", ".join(table.column_names)) for table in TABLES}


def records(raw: RawData, table: str) -> list[dict[str, Any]]:
    names = next(each.column_names for each in TABLES if each.name == table)
    return [dict(zip(names, row, strict=True)) for row in raw.rows(table, ", ".join(names))]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> RawData:
    """Return 20,000 rows in DuckDB that tests only read."""
    raw = duckdb_raw_in(tmp_path_factory.mktemp("sample"))
    write(raw, 20_000)
    return raw


def test_both_warehouses_get_the_same_rows(duckdb_raw: RawData, postgres_raw: RawData) -> None:
    here, there = write(duckdb_raw, 3_000), write(postgres_raw, 3_000)
    assert here.tables == there.tables
    assert everything(duckdb_raw) == everything(postgres_raw)


def test_rows_do_not_change_from_one_version_of_duckdb_or_this_project_to_the_next(
    duckdb_raw: RawData,
) -> None:
    write(duckdb_raw, 1_000, seed=7)
    digest = hashlib.sha256(repr(everything(duckdb_raw)).encode()).hexdigest()
    # Changing the generated rows on purpose is fine; put the new digest here and tell so in the CHANGELOG.
    assert digest[:16] == "f5f16509efdc01a6"


def test_writing_again_replaces_everything_by_the_same(raw: RawData) -> None:
    write(raw, 5_000, seed=1)
    first = write(raw, 1_000)
    rows = everything(raw)
    assert write(raw, 1_000).tables == first.tables
    assert everything(raw) == rows
    assert {name: len(found) for name, found in rows.items()} == first.tables


def test_another_seed_gives_other_rows_of_the_same_shape(duckdb_raw: RawData) -> None:
    write(duckdb_raw, 1_000, seed=1)
    one = everything(duckdb_raw)
    write(duckdb_raw, 1_000, seed=-2)
    two = everything(duckdb_raw)
    changed = {name for name in one if one[name] != two[name]}
    assert changed == set(one)


@pytest.mark.parametrize("rows", [1_000, 2_500, 20_000, 150_000])
def test_the_number_of_rows_is_met_within_five_percent(duckdb_raw: RawData, rows: int) -> None:
    result = write(duckdb_raw, rows)
    assert abs(result.rows - rows) <= rows * 0.05
    assert result.rows == sum(duckdb_raw.count(table.name) for table in TABLES)


@pytest.mark.parametrize("rows", [1, 100])
def test_even_the_smallest_data_has_something_in_every_table(duckdb_raw: RawData, rows: int) -> None:
    result = write(duckdb_raw, rows)
    assert 90 <= result.rows <= 130
    assert all(result.tables.values())
    assert duckdb_raw.rows("supabase_concert", "count(*)", f"where concert_date >= '{NOW:%Y-%m-%d}'") != [(0,)]


def test_sizes_grow_to_tens_of_millions() -> None:
    sizes = sizes_for(50_000_000, NOW.date())
    assert sizes.google_campaigns > 10_000
    assert 100 <= (sizes.last_concert - sizes.first_concert) / sizes.concerts_per_week <= 110


def test_every_sync_was_within_the_last_six_hours(written: RawData) -> None:
    for table in TABLES:
        loaded_at = table.column_names[-1]
        [(first, last)] = written.rows(table.name, f"min({loaded_at}), max({loaded_at})")
        assert NOW - timedelta(hours=6) <= first <= last <= NOW
        assert last >= NOW - timedelta(minutes=15)


def test_a_moment_in_another_time_zone_is_taken_as_the_same_moment(duckdb_raw: RawData) -> None:
    write(duckdb_raw, 200)
    naive = everything(duckdb_raw)
    moment = NOW.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=-9)))
    assert write(duckdb_raw, 200, now=moment).now == NOW
    assert everything(duckdb_raw) == naive


def test_without_a_moment_the_data_is_fresh(duckdb_raw: RawData) -> None:
    write(duckdb_raw, 200, now=None)
    [(last,)] = duckdb_raw.rows("supabase_musician", "max(_airbyte_emitted_at)")
    assert timedelta(0) <= datetime.now(UTC).replace(tzinfo=None) - last <= timedelta(minutes=16)


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("google_ads_campaigns", "campaign_id"),
        ("google_ads_campaign_performance", "_airbyte_raw_id"),
        ("google_ads_campaign_performance", "(campaign_id, segments_date, _airbyte_extracted_at)"),
        ("facebook_ads_campaigns", "id"),
        ("facebook_ads_insights", "(campaign_id, date_start, _airbyte_extracted_at)"),
        ("supabase_musician", "musician_id"),
        ("supabase_concert", "concert_id"),
        ("supabase_service", "service_id"),
        ("supabase_contract", "contract_id"),
        ("supabase_contract", "(concert_id, musician_id)"),
        ("supabase_attendance", "attendance_id"),
        ("supabase_attendance", "(service_id, musician_id, recorded_at)"),
        ("supabase_payment", "payment_id"),
        ("supabase_payment", "(concert_id, musician_id)"),
    ],
)
def test_keys_are_unique_and_filled(written: RawData, table: str, key: str) -> None:
    [(rows, keys)] = written.rows(table, f"count(*), count(distinct {key})")
    assert rows == keys > 0


@pytest.mark.parametrize(
    ("table", "column", "parent", "key"),
    [
        ("google_ads_campaign_performance", "campaign_id", "google_ads_campaigns", "campaign_id"),
        ("facebook_ads_insights", "campaign_id", "facebook_ads_campaigns", "id"),
        ("supabase_service", "concert_id", "supabase_concert", "concert_id"),
        ("supabase_contract", "concert_id", "supabase_concert", "concert_id"),
        ("supabase_contract", "musician_id", "supabase_musician", "musician_id"),
        ("supabase_attendance", "service_id", "supabase_service", "service_id"),
        ("supabase_attendance", "musician_id", "supabase_musician", "musician_id"),
        ("supabase_payment", "(concert_id, musician_id)", "supabase_contract", "(concert_id, musician_id)"),
    ],
)
def test_references_lead_somewhere(written: RawData, table: str, column: str, parent: str, key: str) -> None:
    orphans = written.rows(table, "count(*)", f"where {column} not in (select {key} from raw.{parent})")
    assert orphans == [(0,)]


# Marketing


def test_a_restated_day_has_more_conversions_than_before(written: RawData) -> None:
    versions: dict[tuple[int, date], list[dict[str, Any]]] = defaultdict(list)
    for row in records(written, "google_ads_campaign_performance"):
        versions[row["campaign_id"], row["segments_date"]].append(row)
    restated = [
        sorted(rows, key=lambda row: row["_airbyte_extracted_at"]) for rows in versions.values() if len(rows) > 1
    ]
    assert {len(rows) for rows in restated} == {2, 3}
    assert len(restated) > 20
    for rows in restated:
        for before, after in pairwise(rows):
            assert before["metrics_conversions"] <= after["metrics_conversions"]
            assert before["metrics_cost_micros"] >= after["metrics_cost_micros"]
    assert sum(day >= NOW.date() - timedelta(days=7) for _, day in versions if len(versions[_, day]) > 1) > 5


def test_some_days_arrive_late(written: RawData) -> None:
    first = written.read(
        "select segments_date, min(_airbyte_extracted_at) from raw.google_ads_campaign_performance"
        " group by campaign_id, segments_date"
    )
    late = [day for day, arrived in first if arrived > NOW - timedelta(hours=5, minutes=30)]
    assert late
    assert min(late) >= NOW.date() - timedelta(days=3)


def test_paused_and_removed_campaigns_have_no_recent_days(written: RawData) -> None:
    statuses = dict(written.rows("google_ads_campaigns", "campaign_id, campaign_status"))
    last_day = dict(written.rows("google_ads_campaign_performance", "campaign_id, max(segments_date)", "group by 1"))
    assert set(statuses.values()) == {"ENABLED", "PAUSED", "REMOVED"}
    yesterday = NOW.date() - timedelta(days=1)
    assert {statuses[campaign] == "ENABLED": day == yesterday for campaign, day in last_day.items()} == {
        True: True,
        False: False,
    }
    assert set(value for (value,) in written.rows("facebook_ads_campaigns", "distinct status")) == {
        "ACTIVE",
        "PAUSED",
        "ARCHIVED",
    }


def test_no_day_is_before_its_campaign_or_impossible(written: RawData) -> None:
    assert written.read(
        "select count(*) from raw.google_ads_campaign_performance as p"
        " join raw.google_ads_campaigns as c on p.campaign_id = c.campaign_id"
        " where p.segments_date < c.campaign_start_date or p.metrics_clicks > p.metrics_impressions"
        " or p.metrics_impressions <= 0 or p.metrics_cost_micros < 0"
    ) == [(0,)]


def test_weekends_are_weaker_for_search_and_stronger_for_social(written: RawData) -> None:
    def weekend_share(table: str, day: str, shown: str) -> float:
        [(weekend, week)] = written.read(
            f"select avg({shown}) filter (isodow({day}) >= 6), avg({shown}) filter (isodow({day}) < 6) from raw.{table}"
        )
        return weekend / week

    assert weekend_share("google_ads_campaign_performance", "segments_date", "metrics_impressions") < 0.9
    assert weekend_share("facebook_ads_insights", "date_start", "impressions") > 1.05


# Payroll


def owed(contract: dict[str, Any], statuses: list[str]) -> tuple[Decimal, Decimal]:
    """Compute gross and deductions of a contract by the rules of the payroll domain."""
    played = sum(status in ("present", "late") for status in statuses)
    if contract["pay_type"] == "per_service":
        return played * contract["rate_per_service"], Decimal(0)
    if contract["pay_type"] == "flat_fee":
        missed = contract["required_services"] - played - statuses.count("excused")
        fee = contract["flat_fee"]
        return fee, min(fee, missed * contract["deduction_per_missed_service"])
    return Decimal(0), Decimal(0)


@pytest.mark.parametrize("seed", [42, 1234])
def test_payments_of_past_concerts_equal_what_the_rules_give_to_the_cent(duckdb_raw: RawData, seed: int) -> None:
    write(duckdb_raw, 20_000, seed)
    concert_of = dict(duckdb_raw.rows("supabase_service", "service_id, concert_id"))
    services = Counter(concert_of.values())
    dates = dict(duckdb_raw.rows("supabase_concert", "concert_id, concert_date"))
    latest: dict[tuple[int, int], tuple[datetime, str]] = {}
    for change in records(duckdb_raw, "supabase_attendance"):
        key = change["service_id"], change["musician_id"]
        latest[key] = max(latest.get(key, (datetime.min, "")), (change["recorded_at"], change["status"]))
    statuses: dict[tuple[int, int], list[str]] = defaultdict(list)
    for (service, musician), (_, status) in latest.items():
        statuses[concert_of[service], musician].append(status)
    expected = {}
    for contract in records(duckdb_raw, "supabase_contract"):
        key = contract["concert_id"], contract["musician_id"]
        assert contract["required_services"] == services[contract["concert_id"]]
        if dates[contract["concert_id"]] < NOW.date():
            assert len(statuses[key]) == contract["required_services"]
            gross, deductions = owed(contract, statuses[key])
            expected[key] = (gross, deductions, gross - deductions)
    recorded = {
        (row["concert_id"], row["musician_id"]): (row["gross_amount"], row["deductions"], row["net_amount"])
        for row in records(duckdb_raw, "supabase_payment")
    }
    assert recorded == expected
    assert any(deductions for _, deductions, _ in recorded.values())
    assert any(gross % 1 for gross, _, _ in recorded.values())


def test_all_pay_types_and_statuses_occur_with_the_terms_they_need(written: RawData) -> None:
    contracts = records(written, "supabase_contract")
    terms = {
        (
            row["pay_type"],
            *(row[name] is not None for name in ("rate_per_service", "flat_fee", "deduction_per_missed_service")),
        )
        for row in contracts
    }
    assert terms == {
        ("per_service", True, False, False),
        ("flat_fee", False, True, True),
        ("salaried", False, False, False),
    }
    statuses = {status for (status,) in written.rows("supabase_attendance", "distinct status")}
    assert statuses == {"present", "late", "excused", "absent"}


def test_a_deduction_never_exceeds_the_fee_even_when_it_would(written: RawData) -> None:
    capped = written.read(
        "select count(*) from raw.supabase_payment as p join raw.supabase_contract as c"
        " on p.payment_id = c.contract_id where c.pay_type = 'flat_fee' and p.net_amount < 0"
    )
    assert capped == [(0,)]


def test_corrections_are_recorded_later_than_they_are_true_from(written: RawData) -> None:
    changes = records(written, "supabase_attendance")
    assert all(row["effective_from"] <= row["recorded_at"] == row["updated_at"] <= NOW for row in changes)
    retroactive = [row for row in changes if row["recorded_at"] > row["effective_from"]]
    assert 0.02 < len(retroactive) / len(changes) < 0.08
    histories: dict[tuple[int, int], list[tuple[datetime, datetime, int]]] = defaultdict(list)
    for row in changes:
        key = row["service_id"], row["musician_id"]
        histories[key].append((row["recorded_at"], row["effective_from"], row["attendance_id"]))
    assert max(len(history) for history in histories.values()) >= 3
    for history in histories.values():
        history.sort()
        # Whoever orders by either time finds the same current status.
        assert [change[1] for change in history] == sorted(change[1] for change in history)
        assert [change[2] for change in history] == sorted(change[2] for change in history)


def test_coming_concerts_have_contracts_and_neither_payments_nor_attendance(written: RawData) -> None:
    concerts = f"select concert_id from raw.supabase_concert where concert_date >= '{NOW:%Y-%m-%d}'"
    coming = f"where concert_id in ({concerts})"
    assert written.rows("supabase_contract", "count(*) > 0", coming) == [(True,)]
    assert written.rows("supabase_payment", "count(*)", coming) == [(0,)]
    services = f"select service_id from raw.supabase_service where starts_at > timestamp '{NOW}'"
    assert written.rows("supabase_attendance", "count(*)", f"where service_id in ({services})") == [(0,)]


def test_people_are_numbered_and_their_addresses_lead_nowhere(written: RawData) -> None:
    for musician in records(written, "supabase_musician"):
        number = f"{musician['musician_id']:04d}"
        assert (musician["first_name"], musician["last_name"]) == ("Musician", number)
        assert musician["email"] == f"musician.{number}@example.org"
        assert musician["hired_on"] < musician["updated_at"].date() < NOW.date()


def test_on_a_later_day_the_past_is_as_it_was(duckdb_raw: RawData) -> None:
    write(duckdb_raw, 5_000)
    before = {name: set(rows) for name, rows in without_syncs(duckdb_raw).items()}
    write(duckdb_raw, 5_000, now=NOW + timedelta(days=3))
    after = {name: set(rows) for name, rows in without_syncs(duckdb_raw).items()}
    oldest = min(row[1] for row in after["supabase_attendance"])
    kept = {row for row in before["supabase_attendance"] if row[1] >= oldest}
    assert kept <= after["supabase_attendance"]
    assert after["supabase_attendance"] - before["supabase_attendance"]
    assert before["supabase_musician"] == after["supabase_musician"]


def without_syncs(raw: RawData) -> dict[str, list[tuple[Any, ...]]]:
    return {table.name: raw.rows(table.name, ", ".join(table.column_names[:-2])) for table in TABLES}


# When it cannot be


def test_tables_with_rows_of_somebody_else_are_left_alone(raw: RawData) -> None:
    campaigns = next(table for table in TABLES if table.name == "google_ads_campaigns")
    theirs = (1, "Real campaign", "ENABLED", "SEARCH", 1, date(2026, 1, 1), "x", NOW)
    with open_warehouse(raw.profile, raw.raw_schema) as warehouse, warehouse.loading():
        warehouse.prepare([campaigns])
        warehouse.append(campaigns, [theirs])
    with pytest.raises(ConfigError, match=r"google_ads_campaigns of this target have rows that are not sample data"):
        write(raw, 100)
    assert raw.rows("google_ads_campaigns") == [theirs]


def test_a_table_of_a_real_sync_with_more_columns_is_left_alone(raw: RawData) -> None:
    real = RawTable("supabase_musician", (("musician_id", "bigint"), ("_airbyte_meta", "varchar")))
    with open_warehouse(raw.profile, raw.raw_schema) as warehouse, warehouse.loading():
        warehouse.prepare([real])
    with pytest.raises(ConfigError, match="supabase_musician is there already, but it is not the table"):
        write(raw, 100)
    assert raw.rows("supabase_musician") == []


@pytest.mark.parametrize(
    ("rows", "now", "message"),
    [
        (0, NOW, "0 rows"),
        (10**10, NOW, "10,000,000,000 rows"),
        (100, datetime(1999, 1, 1), "1999-01-01 cannot be generated"),
    ],
)
def test_numbers_and_moments_that_cannot_be_are_refused(
    duckdb_raw: RawData, rows: int, now: datetime, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write(duckdb_raw, rows, now=now)


def test_writing_that_is_killed_leaves_the_old_rows_and_the_next_one_is_right(raw: RawData) -> None:
    write(raw, 300, seed=1)
    before = everything(raw)
    program = (
        "import os, signal\n"
        "from flows.loaders.sample_data import write_sample_data\n"
        "from infrastructure.profiles import Profile\n"
        f"profile = Profile('t', 't', {raw.profile.output!r}, {{}})\n"
        "def report(text):\n"
        "    if 'supabase_contract' in text:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_sample_data(profile, 2_000, 2, None, {raw.raw_schema!r}, report)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert everything(raw) == before
    again = write(raw, 300, seed=1)
    assert everything(raw) == before
    assert again.tables == {name: len(rows) for name, rows in before.items()}
