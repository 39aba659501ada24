"""Write sample data into the raw schema of a target, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows.loaders.sample_data.sizes import sizes_for
from flows.loaders.sample_data.tables import TABLES
from flows.warehouses.door import open_warehouse
from flows.warehouses.raw_tables import RawTable
from flows.warehouses.warehouse import Warehouse
from infrastructure.errors import ConfigError, preview
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

NOTE = "Sample data, written by `tributary sample-data`, which replaces all of it."
SCRIPTS = ("numbers.sql", "marketing.sql", "payroll.sql")
MAX_ROWS = 1_000_000_000
FIRST_YEAR, LAST_YEAR = 2005, 2200


@dataclass(frozen=True)
class SampleDataResult:
    """What was written.

    Attributes:
        tables: rows by table.
        now: the moment (naive UTC) to which the data's dates relate.
    """

    raw_schema: str
    tables: Mapping[str, int]
    seed: int
    now: datetime

    @property
    def rows(self) -> int:
        """Return the number of rows in all tables."""
        return sum(self.tables.values())


def write_sample_data(
    profile: Profile,
    rows: int,
    seed: int,
    now: datetime | None = None,
    raw_schema: str = "raw",
    report: Callable[[str], None] | None = None,
) -> SampleDataResult:
    """Replace the raw tables of marketing and payroll with generated ones, all or none of them.

    The same seed and moment give the same rows, on every warehouse and machine. With a later moment, what was complete
    stays the same and the rest has gone on, so that writing again on another day looks like a live source. Tables with
    other rows than sample data are left alone.

    Args:
        rows: wanted over all tables; met within a few percent, and a hundred at least.
        now: the moment to which dates relate; naive means UTC, None means the present.
        report: called with a sentence about each step.

    Raises:
        ConfigError: `rows` or `now` is out of range, a table has other data, or the warehouse refuses.
        UpstreamUnavailable: the server does not answer, or the DuckDB file is in use.
    """
    say = report or _silent
    if not 1 <= rows <= MAX_ROWS:
        raise ConfigError(f"{rows:,} rows of sample data cannot be generated: choose a number from 1 to {MAX_ROWS:,}.")
    moment = (now or datetime.now(UTC)).replace(microsecond=0)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ConfigError(f"Sample data for {moment:%Y-%m-%d} cannot be generated: choose a year from 2005 to 2200.")
    variables = {"seed": scrambled_seed(seed), "now": moment, "today": moment.date()}
    variables |= asdict(sizes_for(rows, moment.date()))
    written: dict[str, int] = {}
    with open_warehouse(profile, raw_schema) as warehouse, warehouse.loading():
        warehouse.prepare(TABLES)
        _refuse_foreign_rows(warehouse, raw_schema, TABLES)
        generator = warehouse.generator()
        for name, value in variables.items():
            kind = {"now": "timestamp", "today": "date"}.get(name, "bigint")
            generator.execute(f"set variable {name} = '{value}'::{kind}")
        for script in SCRIPTS:
            generator.execute(Path(__file__).with_name(script).read_text(encoding="utf-8"))
        for table in TABLES:
            written[table.name] = warehouse.replace(table, f"select * from temp.{table.name}")
            warehouse.annotate(table, NOTE)
            say(f"Wrote {written[table.name]:,} rows of {raw_schema}.{table.name}.")
        say("Saving them.")
    result = SampleDataResult(raw_schema=raw_schema, tables=written, seed=seed, now=moment)
    say(f"{count_of(result.rows, 'row')} of sample data are in {count_of(len(TABLES), 'table')} of {raw_schema}.")
    return result


def count_sample_rows(profile: Profile, raw_schema: str = "raw") -> int:
    """Return how many rows the tables of sample data hold now."""
    with open_warehouse(profile, raw_schema) as warehouse, warehouse.loading():
        warehouse.prepare(TABLES)
        return sum(warehouse.count(table, {}) for table in TABLES)


def scrambled_seed(seed: int) -> int:
    """Spread seeds over 32 bits, so that neighbouring seeds give different data."""
    value = (seed * 2654435761 + 97) & 0xFFFFFFFF
    for _ in range(2):
        value = (value ^ (value >> 16)) * 73244475 & 0xFFFFFFFF
    return value ^ (value >> 16)


def _refuse_foreign_rows(warehouse: Warehouse, raw_schema: str, tables: Sequence[RawTable]) -> None:
    foreign = [table.name for table in tables if warehouse.note(table) != NOTE and warehouse.count(table, {})]
    if foreign:
        raise ConfigError(
            f"{preview([f'{raw_schema}.{name}' for name in foreign])} of this target have rows that are not "
            "sample data, so nothing was replaced. Use another target, or another schema "
            "(--raw-schema NAME)."
        )


def _silent(_: str) -> None:
    """Ignore a message."""
