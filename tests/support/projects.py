"""The dbt projects that tests run, and the data that those expect."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from infrastructure.profiles import Profile, load_profile

PROJECTS = Path(__file__).parents[1] / "projects"


def deliver(target: str, hours_ago: int) -> Path:
    """Put a row into the source of the orchard that came so long ago."""
    path = Path(load_profile(target).output["path"])
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute("create schema if not exists deliveries")
        connection.execute(
            "create or replace table deliveries.crates as select 1 as id, "
            f"cast(now() at time zone 'UTC' as timestamp) - interval {hours_ago} hour as delivered_at"
        )
    return path


def deliver_payments(target: str, hours_ago: int = 1, amount: str = "100.10", recorded: str = "100.10") -> None:
    """Load the payments of two musicians; the second one's amount is given."""
    load_payments(Path(load_profile(target).output["path"]), hours_ago, amount, recorded)


def load_payments(path: Path, hours_ago: int, amount: str = "100.10", recorded: str = "100.10") -> None:
    """Load them into a DuckDB file."""
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute("create schema if not exists raw")
        connection.execute(
            "create or replace table raw.pay as select musician_id, 7 as concert_id, 'per_service' as pay_type, "
            f"cast(case musician_id when 1 then 0.30 else {amount} end as numeric(18, 2)) as net_amount, "
            f"cast(case musician_id when 1 then 0.30 else {recorded} end as numeric(18, 2)) as recorded, "
            f"cast(now() at time zone 'UTC' as timestamp) - interval ({hours_ago}) hour as loaded_at "
            "from (values (1), (2)) as m (musician_id)"
        )


def profile_in(folder: Path, **more: Any) -> Profile:
    """Return a profile of a DuckDB file in a folder."""
    output = {"type": "duckdb", "path": str(folder / "warehouse.duckdb"), "schema": "main", "threads": 2} | more
    return Profile("dev", "tributary", output, {})
