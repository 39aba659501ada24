"""Convert schedules with a time zone to the UTC cron lines that dbt Cloud has.

dbt Cloud has no time zones, so a converted schedule is right only until the clocks change. It is compiled with the
offset of its next run; `resync` compiles it again before the run after that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from infrastructure.errors import ConfigError

_DAYS_A_WEEK = 7
_MINUTES_A_DAY = 1440
_LAST = "L"
# Days that every month has; beyond them, moving a date by a day differs from month to month.
_SAFE_LAST_DAY = 28


@dataclass(frozen=True)
class _Fields:
    """A cron line as sets of numbers; days of the month as text where they are not numbers."""

    minutes: frozenset[int]
    hours: frozenset[int]
    day_text: str
    month_text: str
    weekday_text: str
    weekdays: frozenset[int]


def check_cron(cron: str) -> str:
    """Return a cron line of five fields as it is.

    Raises:
        ConfigError: it is not one.
    """
    if len(cron.split()) != 5:
        raise ConfigError(f"{cron!r} has to be a cron line of five fields: minute, hour, day, month, weekday.")
    try:
        CronSim(cron.upper(), datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as exc:
        raise ConfigError(f"{cron!r} is not a cron line: {str(exc).lower()}.") from exc
    return cron


def check_zone(zone: str) -> ZoneInfo:
    """Return the time zone of this name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ConfigError(f"{zone!r} is not a time zone. Write it like Europe/London or America/New_York.") from exc


def utc_cron(cron: str, zone: str, now: datetime) -> str:
    """Return the UTC cron line of a local one, right for its next run after `now`.

    Around a change of the clock that is the line with the next run's offset as soon as it makes no run before that
    one. Until then it is the line with today's: a job that ran at 5:30 UTC would run at 6:30 UTC again.

    Raises:
        ConfigError: a field is wrong, or it is not a single cron line in UTC.
    """
    check_cron(cron)
    local = now.astimezone(check_zone(zone))
    following = next(CronSim(cron.upper(), local), local)
    line = _at_offset(cron, zone, following)
    if following.utcoffset() == local.utcoffset():
        return line
    by_line = next(CronSim(line, now.astimezone(UTC)), None)
    return line if by_line == following else _at_offset(cron, zone, local)


def _at_offset(cron: str, zone: str, moment: datetime) -> str:
    minutes = round((moment.utcoffset() or timedelta()).total_seconds() / 60)
    return cron if minutes == 0 else _moved(cron, zone, -minutes)


def _moved(cron: str, zone: str, minutes: int) -> str:
    fields = _read(cron)
    times = {hour * 60 + minute + minutes for hour, minute in product(fields.hours, fields.minutes)}
    moved = {time % _MINUTES_A_DAY for time in times}
    by_days = {time // _MINUTES_A_DAY for time in times}
    hours, ends = {time // 60 for time in moved}, {time % 60 for time in moved}
    if len(moved) != len(hours) * len(ends):
        raise _no_single(cron, zone, "its hours and minutes do not move together")
    day, month, weekday = fields.day_text, fields.month_text, fields.weekday_text
    if by_days != {0} and not (day == month == weekday == "*"):
        if len(by_days) > 1:
            raise _no_single(cron, zone, "some of its runs are on another day in UTC, others are not")
        (shift,) = by_days
        if day != "*":
            day = _moved_day(cron, zone, fields, shift)
        if weekday != "*":
            if any(mark in weekday.upper() for mark in ("#", _LAST)):
                raise _no_single(cron, zone, "it names a certain weekday of the month, which is another day in UTC")
            weekday = _text({(number + shift) % _DAYS_A_WEEK for number in fields.weekdays}, _DAYS_A_WEEK)
        if month != "*" and day == "*":
            raise _no_single(cron, zone, "it names months, and its first or last run is in another month in UTC")
    return f"{_text(ends, 60)} {_text(hours, 24)} {day} {month} {weekday}"


def _moved_day(cron: str, zone: str, fields: _Fields, shift: int) -> str:
    text = fields.day_text.upper()
    if fields.month_text != "*":
        raise _no_single(cron, zone, "it names a day of certain months, which is another day in UTC")
    if text == _LAST:
        if shift == 1:
            return "1"
        raise _no_single(cron, zone, "the day before the last one of a month has no cron")
    if not all(part.isdigit() for part in text.split(",")):
        raise _no_single(cron, zone, "its days are a range or a step")
    days = [int(part) + shift for part in text.split(",")]
    if min(days) == 0 and len(days) == 1:
        return _LAST
    if min(days) < 1 or max([*days, *(number - shift for number in days)]) > _SAFE_LAST_DAY:
        raise _no_single(cron, zone, "not every month has the day that it is in UTC")
    return ",".join(str(number) for number in days)


def _read(cron: str) -> _Fields:
    minute, hour, day, month, weekday = cron.split()
    # Each field alone, so that the sets do not depend on how cron combines the days.
    clock = CronSim(f"{minute} {hour} * * *", datetime(2026, 1, 1, tzinfo=UTC))
    week = CronSim(f"0 0 * * {weekday}".upper(), datetime(2026, 1, 1, tzinfo=UTC))
    weekdays = frozenset(number % _DAYS_A_WEEK for number in week.weekdays if isinstance(number, int))
    return _Fields(frozenset(clock.minutes), frozenset(clock.hours), day, month, weekday, weekdays)


def _text(numbers: set[int], size: int) -> str:
    """Return a field: a star, a step, or the numbers."""
    ordered = sorted(numbers)
    if len(ordered) == size:
        return "*"
    if len(ordered) > 2 and ordered[0] == 0:
        step = ordered[1]
        if size % step == 0 and ordered == list(range(0, size, step)):
            return f"*/{step}"
    return ",".join(str(number) for number in ordered)


def _no_single(cron: str, zone: str, why: str) -> ConfigError:
    return ConfigError(
        f"The schedule {cron!r} in {zone} can't be one cron line in UTC, which is all that dbt Cloud has: {why}. "
        "Split the job in two, choose another hour, or let Prefect start it (flows/pipelines/cloud_job.py)."
    )
