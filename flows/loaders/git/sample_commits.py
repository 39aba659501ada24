"""Sample commits, for a first run where there is no git repository to read: a ZIP of the project, or no git."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from flows.loaders.git.load import COMMITS, CONTRIBUTORS, REPOSITORIES, TABLES, group_contributors
from flows.warehouses.door import open_warehouse
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

REPOSITORY_ID = "sample"
NAME = "sample-repository"
DAYS = 180
AUTHORS = 4


def write_sample_commits(profile: Profile, now: datetime | None = None, raw_schema: str = "raw") -> int:
    """Replace the commits of the sample repository, and return how many there are.

    They are numbered authors' work of the last half year, the same for the same moment. Where the raw tables hold
    commits of other repositories nothing is written, and 0 is returned.

    Args:
        now: the moment at which the load happens; naive means UTC, None means the present.

    Raises:
        ConfigError: the warehouse refuses.
        UpstreamUnavailable: the server does not answer, or the DuckDB file is in use.
    """
    moment = (now or datetime.now(UTC)).replace(microsecond=0, tzinfo=None)
    at = {"repository_id": REPOSITORY_ID}
    with open_warehouse(profile, raw_schema) as warehouse, warehouse.loading():
        warehouse.prepare(TABLES)
        if warehouse.count(COMMITS, {}) > warehouse.count(COMMITS, at):
            return 0
        for table in TABLES:
            warehouse.delete(table, at)
        commits = list(_commits(moment))
        warehouse.append(COMMITS, commits)
        authored = [(str(row[3]), str(row[4]), row[5]) for row in commits if isinstance(row[5], datetime)]
        warehouse.append(CONTRIBUTORS, group_contributors(REPOSITORY_ID, authored, moment))
        url = "https://example.com/sample-repository.git"
        head = commits[-1][1]
        warehouse.append(REPOSITORIES, [(REPOSITORY_ID, NAME, url, "main", head, False, len(commits), moment)])
        return len(commits)


def _commits(now: datetime) -> Iterator[tuple[object, ...]]:
    """Yield rows of the raw table, oldest first: one to three on each working day."""
    midnight = now.replace(hour=0, minute=0, second=0)
    for age in range(DAYS, 0, -1):
        day = midnight - timedelta(days=age)
        draw = hashlib.sha256(day.date().isoformat().encode()).digest()
        if day.weekday() >= 5:
            continue
        for number in range(1 + draw[0] % 3):
            author = 1 + draw[1 + number] % AUTHORS
            name, email = f"Sample Author {author}", f"author-{author}@example.com"
            at = day + timedelta(hours=9 + 3 * number, minutes=draw[4 + number] % 60)
            commit_hash = hashlib.sha1(f"{at.isoformat()} {author}".encode(), usedforsecurity=False).hexdigest()
            changed, inserted, deleted = 1 + draw[8 + number] % 9, draw[12 + number] * 3, draw[16 + number]
            message = f"Change {count_of(changed, 'file')} of the sample"
            yield (
                *(REPOSITORY_ID, commit_hash, 1, name, email, at, name, email, at),
                *(message, changed, inserted, deleted, now),
            )
