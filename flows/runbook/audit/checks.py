"""The checks of the monthly audit in the warehouse and the run history; each gives one section of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from flows.runbook.audit.settings import Accuracy, SlowModels
from flows.runbook.project_tables import ProjectTables, Versions
from flows.runbook.version_checks import FAULTS, find_faults
from infrastructure.commands import program
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from flows.warehouses.warehouse import Warehouse

Outcome = Literal["error", "warning", "ok", "not made"]
# A month with more than so many times the usual corrections is a warning.
_UNUSUAL = 3


@dataclass(frozen=True)
class Section:
    """The result of one check.

    Attributes:
        sentence: what was found, in words.
        rows: a table with the same columns in each row.
        action: what to do about it; empty where there is nothing to do.
    """

    title: str
    outcome: Outcome
    sentence: str
    rows: tuple[Mapping[str, Any], ...] = ()
    action: str = ""


def integrity(tables: Warehouse, found: Sequence[Versions], target: str) -> Section:
    """Look for keys with several current versions, overlaps, gaps and versions that end before they begin."""
    title = "Integrity of versions"
    if not found:
        return Section(title, "not made", "No model declares that it holds versions, and there is no snapshot.")
    missing = [one.name for one in found if not tables.exists(one.relation)]
    there = [one for one in found if one.name not in missing]
    empty = [one.name for one in there if not _count(tables, one.relation)]
    faults = [fault for one in there for fault in find_faults(tables, one)]
    rows = tuple(
        {"table": fault.table, "key": fault.key_text, "fault": FAULTS[fault.kind], "found": fault.text}
        for fault in faults
    )
    looked = f"{count_of(len(there), 'table')} of versions"
    unseen = [
        f"{', '.join(names)} {what}" for names, what in ((missing, "not built yet"), (empty, "without rows")) if names
    ]
    looked += f" ({'; '.join(unseen)})" if unseen else ""
    if len(there) == len(empty):
        return Section(title, "not made", f"{looked}: they have no versions to check.")
    if not faults:
        # A table that could not be checked counts as an error.
        return Section(title, "warning" if unseen else "ok", f"{looked}: the versions of every key are complete.")
    keys = len({(fault.table, fault.key_text) for fault in faults})
    action = f"{program()} scd2-repair --target {target} --dry-run repairs several current versions; for the rest, "
    action += "rebuild the model from its source."
    return Section(title, "error", f"{looked}: {count_of(len(faults), 'fault')} at {keys} keys.", rows, action)


def corrections(tables: Warehouse, found: Sequence[Versions], months: int) -> Iterator[Section]:
    """Count, by month, the versions that were entered after the moment they are true from."""
    for one in found:
        if one.recorded is None or not tables.exists(one.relation):
            continue
        recorded, begins = tables.column(one.recorded), tables.column(one.begins)
        keys = len(one.key)
        key = tables.column(one.key[0]) if keys == 1 else None
        distinct = f", count(distinct {key}) as keys" if key else ""
        counted = tables.rows(
            f"select extract(year from {recorded}) as year, extract(month from {recorded}) as month, "
            f"count(*) as corrections{distinct} from {one.relation} where {recorded} > {begins} "
            "group by 1, 2 order by 1 desc, 2 desc"
        )[:months]
        usual = median(int(row["corrections"]) for row in counted) if counted else 0
        rows = tuple(
            {
                "month": f"{int(row['year']):04d}-{int(row['month']):02d}",
                "corrections": int(row["corrections"]),
                **({"keys": int(row["keys"])} if key else {}),
                "": "unusual" if int(row["corrections"]) > _UNUSUAL * usual else "",
            }
            for row in counted
        )
        title = f"Corrections after the fact: {one.name}"
        total = sum(int(row["corrections"]) for row in counted)
        if any(row[""] for row in rows):
            span = count_of(len(rows), "month")
            sentence = f"{total:,} in {span}; a month has more than {_UNUSUAL} times the usual {usual:g}."
            yield Section(title, "warning", sentence, rows, "Ask who entered them so late, and why.")
        else:
            yield Section(title, "ok", f"{total:,} in {count_of(len(rows), 'month')}.", rows)


def accuracy(tables: Warehouse, declared: ProjectTables, check: Accuracy) -> Section:
    """Compare amounts with what the source recorded, exactly, and name every row that differs."""
    title = f"Accuracy: {check.name}"
    sides = [declared.named(name) for name in (check.calculated, check.recorded)]
    if not all(side and tables.exists(str(side.relation)) for side in sides):
        return Section(title, "not made", f"{check.calculated} or {check.recorded} is not there.")
    calculated, recorded = (str(side.relation) for side in sides if side)
    keys = [tables.column(name) for name in check.key]
    amounts = [tables.column(name) for name in check.amounts]
    same = " and ".join(f"c.{name} = r.{name}" for name in keys)
    selected = [f"coalesce(c.{name}, r.{name}) as {name}" for name in keys]
    for place, name in enumerate(amounts):
        selected += [f"c.{name} as calculated_{place}", f"r.{name} as recorded_{place}"]
        selected.append(f"c.{name} - r.{name} as difference_{place}")
    differ = " or ".join(
        f"abs(c.{name} - r.{name}) > ? or (c.{name} is null and r.{name} is not null) "
        f"or (c.{name} is not null and r.{name} is null)"
        for name in amounts
    )
    places = ", ".join(str(number) for number in range(1, len(keys) + 1))
    # A row counts as due where that is unknown.
    due = f" and coalesce(c.{tables.column(check.recorded_when)}, true)" if check.recorded_when else ""
    found = tables.rows(
        f"select {', '.join(selected)}, case when c.{keys[0]} is null then 'not calculated' "
        f"when r.{keys[0]} is null then 'not recorded' else 'different' end as outcome "
        f"from {calculated} as c full outer join {recorded} as r on {same} "
        f"where c.{keys[0]} is null or (r.{keys[0]} is null{due}) "
        f"or (c.{keys[0]} is not null and r.{keys[0]} is not null and ({differ})) order by {places}",
        [check.tolerance] * len(amounts),
    )
    rows = tuple(_differences(check, found))
    if not found:
        both = f"{calculated} as c inner join {recorded} as r on {same}"
        if not (compared := _count(tables, both)):
            return Section(
                title, "not made", f"No row of {check.calculated} has a row of {check.recorded} to compare with."
            )
        sentence = f"{check.calculated} and {check.recorded} agree to {check.tolerance} in {count_of(compared, 'row')}."
        return Section(title, "ok", sentence)
    sentence = f"{len(found):,} of {_count(tables, calculated):,} rows do not agree with {check.recorded}."
    return Section(title, "error", sentence, rows, "Find out which side is wrong for each row, before any payment.")


def slow_models(history: DuckDBPyConnection, settings: SlowModels, now: datetime) -> Section:
    """Show the models that take longest, and warn of those that take much longer than before."""
    query = """
        with runs as (
            select
                name,
                seconds,
                started_at > $now - to_days($days) as is_recent
            from nodes
            where resource_type = 'model' and outcome = 'succeeded' and started_at > $now - to_days(4 * $days)
        )
        select
            name,
            count(*) filter (is_recent) as runs,
            median(seconds) filter (is_recent) as usual,
            max(seconds) filter (is_recent) as longest,
            median(seconds) filter (not is_recent) as before
        from runs
        group by name
        having count(*) filter (is_recent) > 0
        order by usual desc
    """
    found = history.execute(query, {"now": now, "days": settings.days}).fetchall()
    title = f"Slow models of the last {settings.days} days"
    if not found:
        return Section(title, "not made", "The run history has no models of that time.")
    rows: list[Mapping[str, Any]] = []
    for name, runs, usual, longest, before in found:
        is_slower = before and usual >= settings.ignore_below_seconds and usual > settings.warn_ratio * before
        rows.append(
            {
                "model": name,
                "runs": runs,
                "usual seconds": round(usual, 2),
                "longest": round(longest, 2),
                "before": "" if before is None else round(before, 2),
                "": "slower" if is_slower else "",
            }
        )
    slower = [row["model"] for row in rows if row[""]]
    shown = tuple([row for row in rows if row[""]] + [row for row in rows if not row[""]])[: settings.shown]
    if slower:
        sentence = f"{len(slower)} of {len(rows)} models take over {settings.warn_ratio:g} times as long as before."
        return Section(title, "warning", sentence, shown, f"Look at their SQL and their tables: {program()} report")
    return Section(title, "ok", f"{count_of(len(rows), 'model')}, none much slower than before.", shown)


def _count(tables: Warehouse, relation: str) -> int:
    (row,) = tables.rows(f"select count(*) as counted from {relation}")
    return int(row["counted"])


def _differences(check: Accuracy, found: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for row in found:
        shown: dict[str, Any] = {name: row[name.lower()] for name in check.key} | {"outcome": row["outcome"]}
        for place, name in enumerate(check.amounts):
            calculated, recorded = row[f"calculated_{place}"], row[f"recorded_{place}"]
            difference = row[f"difference_{place}"]
            is_equal = difference is not None and abs(difference) <= check.tolerance
            shown[name] = _amount(calculated) if is_equal else f"{_amount(calculated)} ≠ {_amount(recorded)}"
            if not is_equal and difference is not None:
                shown[name] += f" ({'+' if difference > 0 else ''}{_amount(difference)})"
        yield shown


def _amount(value: object) -> str:
    """Return an amount exactly, with two decimals or as many as it needs: BigQuery gives nine."""
    if not isinstance(value, Decimal):
        return "nothing" if value is None else str(value)
    cents = value.quantize(Decimal("0.01"))
    return f"{cents if cents == value else value.normalize():f}"
