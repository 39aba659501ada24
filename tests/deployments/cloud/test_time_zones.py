"""Schedules on a local clock: right in UTC on every day of a year, or refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from deployments.dbt_cloud.model.time_zones import utc_cron
from infrastructure.errors import ConfigError

JANUARY, JULY = datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 7, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone", "moment", "expected"),
    [
        ("0 6 * * *", "Europe/London", JANUARY, "0 6 * * *"),
        ("0 6 * * *", "Europe/London", JULY, "0 5 * * *"),
        ("30 6,18 * * 1-5", "America/New_York", JANUARY, "30 11,23 * * 1-5"),
        ("0 6 * * 1-5", "Asia/Kolkata", JULY, "30 0 * * 1-5"),
        ("0 1 * * 1", "Asia/Kolkata", JULY, "30 19 * * 0"),
        ("0 22 * * 5,6", "America/New_York", JULY, "0 2 * * 0,6"),
        ("0 1 1 * *", "Europe/Berlin", JULY, "0 23 L * *"),
        ("0 22 L * *", "America/New_York", JULY, "0 2 1 * *"),
        ("0 */2 * * *", "Europe/Berlin", JULY, "0 */2 * * *"),
        ("*/15 * * * *", "Asia/Kolkata", JULY, "*/15 * * * *"),
        ("0 22 * * *", "America/New_York", JULY, "0 2 * * *"),
    ],
)
def test_a_local_schedule_is_compiled_to_utc(cron: str, zone: str, moment: datetime, expected: str) -> None:
    assert utc_cron(cron, zone, moment) == expected


@pytest.mark.parametrize(
    ("cron", "zone", "why"),
    [
        ("0 0,12 * * 1", "Europe/Berlin", "another day in UTC"),
        ("0,45 6 * * *", "Asia/Kolkata", "hours and minutes do not move together"),
        ("0 1 30 * *", "Europe/Berlin", "not every month has the day"),
        ("0 1 29 * *", "Europe/Berlin", "not every month has the day"),
        ("0 0 * 3 *", "Europe/Berlin", "in another month"),
        ("0 0 1 3 *", "Europe/Berlin", "a day of certain months"),
        ("0 1 L * *", "Europe/Berlin", "the day before the last one"),
        ("0 1 * * 5#2", "Europe/Berlin", "a certain weekday of the month"),
        ("0 1 */2 * *", "Europe/Berlin", "a range or a step"),
    ],
)
def test_what_is_no_single_cron_line_in_utc_is_refused(cron: str, zone: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        utc_cron(cron, zone, JULY)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ConfigError, match=r"five fields"):
        utc_cron("0 6 * *", "UTC", JULY)
    with pytest.raises(ConfigError, match=r"bad hour"):
        utc_cron("0 26 * * *", "UTC", JULY)
    with pytest.raises(ConfigError, match="not a time zone"):
        utc_cron("0 6 * * *", "Europe/Nowhere", JULY)


@pytest.mark.parametrize(
    ("cron", "zone"),
    [("30 6 * * *", "Europe/London"), ("0 22 * * 1-5", "America/New_York"), ("0 4,16 * * *", "Australia/Lord_Howe")],
)
def test_hourly_resyncs_hit_every_local_hour_around_both_changes_of_the_clock(cron: str, zone: str) -> None:
    """What runs in UTC is what was meant on the local clock: nothing is left out, and nothing runs twice."""
    place = ZoneInfo(zone)
    for month in (3, 10):
        now, end = datetime(2026, month, 1, tzinfo=UTC), datetime(2026, month + 1, 10, tzinfo=UTC)
        meant = list(takewhile(lambda it, end=end: it <= end, CronSim(cron, now.astimezone(place))))
        ran: list[datetime] = []
        while now < end:
            # What dbt Cloud runs until the next resync, by the line that this one has left there.
            until = min(now + timedelta(hours=1), end)
            line = CronSim(utc_cron(cron, zone, now), now)
            ran += takewhile(lambda it, until=until: it <= until, line)
            now = until
        assert [moment.astimezone(place) for moment in ran] == meant
        offsets = {moment.utcoffset() for moment in meant}
        assert len(offsets) == 2, "the clock was not changed in this time"
