"""Compute the campaigns, days, concerts and seats that give a number of rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from math import isqrt

FLOOR_ROWS = 100
PAYROLL_SHARE = 0.45
GOOGLE_SHARE = 0.55
FULL_DAYS = 365
FULL_WEEKS = 104
FULL_SEATS = 60
WEEKS_AHEAD = 4

# Expected rows, from the chances in payroll.sql and marketing.sql.
SERVICES_PER_CONCERT = 4.5
CHANGES_PER_ATTENDANCE = 1.0 + 0.034 * 0.15 + 0.04 * 1.1
RESTATED_YESTERDAY = 1.1
RESTATED_RECENT, RECENT_DAYS = 0.4 * 1.1, 7
RESTATED_LATER = 0.02 * 1.1


@dataclass(frozen=True)
class Sizes:
    """The numbers that the SQL of the sample data reads as variables.

    Attributes:
        first_concert, last_concert: numbers counted from 2000-01-01, see payroll.sql.
        google_days, facebook_days: days of advertising, which end yesterday.
    """

    google_campaigns: int
    google_days: int
    facebook_campaigns: int
    facebook_days: int
    concerts_per_week: int
    first_concert: int
    last_concert: int
    seats: int
    musicians: int


def sizes_for(rows: int, today: date) -> Sizes:
    """Return sizes that give about so many rows; below 100 as for 100.

    Small data is a short history of few things, larger data a longer one up to two years of concerts and one
    of advertising, and what is larger still has more concerts a week and more campaigns.
    """
    rows = max(rows, FLOOR_ROWS)
    budget = rows * PAYROLL_SHARE
    seats = min(FULL_SEATS, max(4, isqrt(round(budget / 25))))
    past_concert = 1 + SERVICES_PER_CONCERT + seats * (2 + SERVICES_PER_CONCERT * CHANGES_PER_ATTENDANCE)
    coming_concert = 1 + SERVICES_PER_CONCERT + seats
    per_week = max(1, -(-round(budget / past_concert) // FULL_WEEKS))
    coming = max(1, min(WEEKS_AHEAD * per_week, round(budget / past_concert / 4)))
    musicians = seats * 3 // 2 + (per_week - 1) * seats // 4
    past = max(1, round((budget - musicians - coming * coming_concert) / past_concert))
    latest = -(-(today - date(2000, 1, 1)).days * per_week // 7) - 1
    advertising = rows - round(musicians + past * past_concert + coming * coming_concert)
    google = round(advertising * GOOGLE_SHARE)
    google_campaigns, google_days = _campaigns_and_days(google)
    facebook_campaigns, facebook_days = _campaigns_and_days(advertising - google)
    return Sizes(
        google_campaigns=google_campaigns,
        google_days=google_days,
        facebook_campaigns=facebook_campaigns,
        facebook_days=facebook_days,
        concerts_per_week=per_week,
        first_concert=latest - past + 1,
        last_concert=latest + coming,
        seats=seats,
        musicians=musicians,
    )


def _campaigns_and_days(rows: int) -> tuple[int, int]:
    campaigns = max(3, round(rows / _advertising_rows(1000, FULL_DAYS) * 1000))
    days = 1
    while days < 2 * FULL_DAYS and _advertising_rows(campaigns, days + 1) <= rows + campaigns / 2:
        days += 1
    return campaigns, days


def _advertising_rows(campaigns: int, days: int) -> float:
    """Return the expected rows of a platform: campaigns, their days (see the view campaigns) and restatements."""
    total = float(campaigns)
    for kind in range(10):
        alike = (campaigns - kind) // 10 + (1 if kind else 0)
        stopped = {3: days // 4, 7: days // 2}.get(kind, 0)
        active = days - stopped - (days // 3 if kind == 5 else 0)
        yesterday = 0 if stopped else 1
        recent = max(0, min(active, RECENT_DAYS - stopped) - yesterday)
        restated = yesterday * RESTATED_YESTERDAY + recent * RESTATED_RECENT
        restated += (active - recent - yesterday) * RESTATED_LATER
        total += alike * (active + restated)
    return total
