"""Two targets side by side, or one before and after: rows, columns, keys, sums, sources and configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow

from flows.alerts.hooks import with_alerts
from flows.engine.context.run_context import flow_run_name, open_context
from flows.engine.target.file_lock import one_writer
from flows.report.artifacts import attaching, key_of
from flows.runbook.compare.target_state import TableState, TargetState, load, save, state_of_target
from infrastructure.errors import ConfigError, preview
from infrastructure.plain_text import count_of

# Settings of a target's place, which have to differ, and settings that do not affect what is built.
_PLACES = frozenset(
    [
        "account",
        "database",
        "dataset",
        "dbname",
        "execution_project",
        "host",
        "keyfile",
        "location",
        "path",
        "port",
        "private_key_path",
        "project",
        "role",
        "schema",
        "threads",
        "user",
        "warehouse",
    ]
)


@dataclass(frozen=True)
class Unlike:
    """One difference between two targets.

    Attributes:
        counts: whether it counts as a difference; otherwise it is shown because it may explain one.
    """

    what: str
    name: str
    one: str
    other: str
    counts: bool = True


@dataclass(frozen=True)
class Comparison:
    """Two states of targets, and their differences.

    Attributes:
        tables: how many tables exist on at least one side.
    """

    one: TargetState
    other: TargetState
    unlike: tuple[Unlike, ...]
    tables: int

    @property
    def is_equal(self) -> bool:
        """Return whether there is something to compare, and nothing counts as different."""
        return self.tables > 0 and not any(found.counts for found in self.unlike)

    def sentence(self) -> str:
        """Return the result in one sentence."""
        names = (self.one.target, self.other.target)
        if names[0] == names[1]:
            names = (f"{names[0]} of {self.one.at}", f"of {self.other.at}")
        if not self.tables:
            return f"{names[0]} and {names[1]}: there is no table to compare, so nothing is proven to be the same."
        if self.is_equal:
            return f"{names[0]} and {names[1]}: {count_of(self.tables, 'table')}, all the same."
        differing = {found.name for found in self.unlike if found.counts and found.what != "configuration"}
        return f"{names[0]} and {names[1]}: {len(differing)} of {self.tables} tables or sources differ."


@with_alerts
@flow(flow_run_name=flow_run_name("compare"), validate_parameters=True)
def compare_targets(
    target: str,
    other: str | None = None,
    select: str | None = None,
    project_dir: str | None = None,
    before: str | None = None,
    save_to: str | None = None,
    freshness: bool = True,
) -> Comparison:
    """Compare two targets, or one with an earlier state of it; change nothing.

    Args:
        other: the target to compare with.
        select: dbt selection of the tables; all when None.
        before: a file that an earlier comparison saved, in place of another target.
        save_to: write the state of `target` to this file, with or without a comparison.
        freshness: compare the freshness of the sources, too.

    Raises:
        ConfigError: a target is not set up, or nothing is named to compare with.
    """
    if (other is None) == (before is None) and save_to is None:
        raise ConfigError("Name two targets, or one and the file of an earlier state: --before FILE.")
    states: dict[str, TargetState] = {}
    with ExitStack() as stack:
        # Fails at once when a target is not set up, before anything is read.
        runs = [stack.enter_context(open_context(name, project_dir)) for name in (target, other) if name]
        for run in runs:
            # Data that a run is writing meanwhile would look like a difference.
            with one_writer(run.target, holder=run.holder):
                run.reporter.stage(f"reading {run.target}")
                states[run.target] = state_of_target(run.project, run.profile, select, freshness)
    if save_to:
        save(states[target], Path(save_to))
    against = load(Path(before)) if before else states[other or target]
    # The earlier state comes first.
    one, two = (against, states[target]) if before else (states[target], against)
    found = compared(one, two)
    _publish(found)
    return found


def compared(one: TargetState, other: TargetState) -> Comparison:
    """Return the differences between two states."""
    names = sorted(one.tables.keys() | other.tables.keys())
    unlike: list[Unlike] = []
    absent = TableState(None, {}, {})
    for name in names:
        left, right = one.tables.get(name, absent), other.tables.get(name, absent)
        unlike += _tables(name, left, right, one.warehouse == other.warehouse)
    for source in sorted(one.sources.keys() | other.sources.keys()):
        left_at, right_at = one.sources.get(source, "unknown"), other.sources.get(source, "unknown")
        if left_at != right_at:
            # Newer data may explain a difference.
            unlike.append(Unlike("newest row of source", source, left_at, right_at, counts=False))
    for name in sorted(one.configuration.keys() | other.configuration.keys()):
        left_value, right_value = one.configuration.get(name, "-"), other.configuration.get(name, "-")
        is_place = name.removeprefix("profile: ") in _PLACES or one.warehouse != other.warehouse
        if left_value != right_value:
            unlike.append(Unlike("configuration", name, left_value, right_value, counts=not is_place))
    there = [name for name in names if any(side.tables.get(name, absent).rows is not None for side in (one, other))]
    return Comparison(one, other, tuple(unlike), len(there))


def _tables(name: str, one: TableState, other: TableState, is_same_warehouse: bool) -> Iterator[Unlike]:
    if one.rows is None or other.rows is None:
        left, right = ("missing" if side.rows is None else "there" for side in (one, other))
        yield Unlike("table", name, left, right, counts=left != right)
        return
    if one.rows != other.rows:
        yield Unlike("rows", name, f"{one.rows:,}", f"{other.rows:,}")
    if list(one.columns) != list(other.columns):
        lacking = [column for column in other.columns if column not in one.columns]
        extra = [column for column in one.columns if column not in other.columns]
        if lacking or extra:
            left, right = (f"has {preview(part) or 'no other'}" for part in (extra, lacking))
            yield Unlike("columns", name, left, right)
        else:
            yield Unlike("order of columns", name, preview(list(one.columns)), preview(list(other.columns)))
    if is_same_warehouse:
        for column, kind in one.columns.items():
            if other.columns.get(column, kind) != kind:
                yield Unlike("type", f"{name}.{column}", kind, other.columns[column])
    yield from _keys(name, one, other)
    for column, total in one.sums.items():
        if column in other.sums and other.sums[column] != total:
            yield Unlike("sum", f"{name}.{column}", total, other.sums[column])


def _keys(name: str, one: TableState, other: TableState) -> Iterator[Unlike]:
    if one.keys is None or other.keys is None or one.key != other.key:
        return
    # A key of two rows on one side would be missing once on the other.
    extra = sorted((Counter(one.keys) - Counter(other.keys)).elements())
    missing = sorted((Counter(other.keys) - Counter(one.keys)).elements())
    if extra or missing:
        left, right = (
            f"{len(part):,} of its own: {preview(part)}" if part else "none of its own" for part in (extra, missing)
        )
        yield Unlike(f"keys ({', '.join(one.key)})", name, left, right)


def table_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Return a row per difference, with those first that count."""
    left, right = comparison.one, comparison.other
    titles = (left.target, right.target) if left.target != right.target else ("before", "now")
    return [
        {
            "": "differs" if found.counts else "note",
            "what": found.what,
            "name": found.name,
            titles[0]: found.one,
            titles[1]: found.other,
        }
        for found in sorted(comparison.unlike, key=lambda found: not found.counts)
    ]


def as_document(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON types."""
    return {
        "one": {"target": comparison.one.target, "at": comparison.one.at},
        "other": {"target": comparison.other.target, "at": comparison.other.at},
        "is_equal": comparison.is_equal,
        "tables": {
            name: {
                "rows": [
                    state.tables[name].rows if name in state.tables else None
                    for state in (comparison.one, comparison.other)
                ]
            }
            for name in sorted(comparison.one.tables.keys() | comparison.other.tables.keys())
        },
        "sources": {
            source: [state.sources.get(source) for state in (comparison.one, comparison.other)]
            for source in sorted(comparison.one.sources.keys() | comparison.other.sources.keys())
        },
        "differences": [
            {
                "what": found.what,
                "name": found.name,
                "one": found.one,
                "other": found.other,
                "counts": found.counts,
            }
            for found in comparison.unlike
        ],
    }


def _publish(comparison: Comparison) -> None:
    from prefect.artifacts import create_table_artifact

    with attaching():
        key = key_of("compare", comparison.one.target, comparison.other.target)
        create_table_artifact(table_rows(comparison), key=key, description=comparison.sentence())
