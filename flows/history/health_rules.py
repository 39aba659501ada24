"""The health checks: each queries the history and compares with the thresholds; no effects, no clock.

Every function takes a connection with the views `runs`, `nodes` and `latest` of one project and target. Times in them
are UTC without a zone, and so is `now`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flows.history import health_settings as settings
from flows.history.views import literal
from infrastructure.plain_text import all_of, are, count_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PASSED, WARNED, FAILED, NOT_RUN = "passed", "warned", "failed", "could not run"
# Outcomes other than passed, worst last.
_ORDER = (PASSED, WARNED, NOT_RUN, FAILED)
MAX_ITEMS = 20
# Clocks of machines differ a little. A time later than this is wrong, whatever its row says.
_FUTURE_SECONDS = 300
_ENDED_WELL = ("succeeded", "warned")


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        outcome: one of PASSED, WARNED, FAILED and NOT_RUN.
        found: one sentence with the figure that was compared.
        method: how it was found, so that the result can be reproduced.
        items: what exceeds the thresholds, worst first.
    """

    outcome: str
    found: str
    method: str
    items: tuple[str, ...] = ()

    @property
    def is_healthy(self) -> bool:
        """Return whether no action is needed; a check that could not run is not healthy."""
        return self.outcome in (PASSED, WARNED)


Judge = Callable[["DuckDBPyConnection", Any, datetime], Finding]


def source_freshness(history: DuckDBPyConnection, check: settings.Hours, now: datetime) -> Finding:
    """Compare each source's age with its own freshness, else with the limits of the check."""
    method = "dbt source freshness, the last result of every source"
    rows = _rows(
        history,
        "select name, split_part(unique_id, '.', 3), max_loaded_at, warn_after_seconds, error_after_seconds, status, "
        "finished_at from latest where resource_type = 'source' order by max_loaded_at nulls first",
    )
    if not rows:
        return Finding(NOT_RUN, "The freshness of no source has been checked yet.", method)
    judged: list[tuple[str, str]] = []
    for name, source, loaded_at, warn_after, error_after, status, checked_at in rows:
        if loaded_at is None:
            judged.append((NOT_RUN, f"{source}.{name} could not be checked ({status})"))
            continue
        promised = warn_after or error_after
        warn = (warn_after or error_after) if promised else check.warn_hours * 3600
        fail = (error_after or float("inf")) if promised else check.fail_hours * 3600
        # The age when it was checked; the time since is not added, as the source may have been loaded meanwhile.
        age = ((checked_at or now) - loaded_at).total_seconds()
        judged.append((_aged(age, warn, fail), f"{source}.{name} is {_old(age)}, promised {duration(warn)}"))
    return _all_of(judged, (len(rows), "source"), "fresh", method)


def last_run(history: DuckDBPyConnection, check: settings.Hours, now: datetime) -> Finding:
    """Check the outcome and the age of the last build."""
    method = "the last dbt build or run in the history"
    rows = _rows(
        history,
        "select run_started_at, run_outcome, run_error from runs where command in ('dbt build', 'dbt run') "
        "order by run_started_at desc limit 100",
    )
    if not rows:
        return Finding(NOT_RUN, "Nothing has been built yet.", method)
    # A cancelled run says nothing about how things are; the run before it does.
    told = next((row for row in rows if row[1] != "cancelled"), None)
    if told is None:
        return Finding(NOT_RUN, f"Each of the last {count_of(len(rows), 'run')} was cancelled.", method)
    cancelled = rows.index(told)
    started_at, outcome, error = told
    age = (now - started_at).total_seconds()
    ago = f"{duration(age)} {'ago' if age >= 0 else 'from now'}"
    besides = f" but {cancelled} that {'was' if cancelled == 1 else 'were'} cancelled" if cancelled else ""
    if outcome not in _ENDED_WELL:
        said = outcome or "has no outcome"
        return Finding(FAILED, f"The last run{besides}, {ago}, {said}.", method, (str(error),) if error else ())
    level = _aged(age, check.warn_hours * 3600, check.fail_hours * 3600)
    if cancelled and level == PASSED:
        level = WARNED
    return Finding(level, f"The last run{besides}, {ago}, succeeded.", method)


def tests(history: DuckDBPyConnection, check: settings.PassRate, now: datetime) -> Finding:
    """Check the share of tests that passed last; a critical test that did not pass fails the check."""
    method = "the last result of every dbt test in the history"
    rows = _rows(
        history,
        "select name, outcome, is_critical, failures from latest where resource_type in ('test', 'unit_test') "
        "order by is_critical desc nulls last, outcome, name",
    )
    if not rows:
        return Finding(NOT_RUN, "No test has been run yet.", method)
    bad = [row for row in rows if row[1] != "succeeded"]
    rate = 1 - len(bad) / len(rows)
    level = _level(-rate, -check.warn_pass_rate, -check.fail_pass_rate)
    if any(is_critical for _, _, is_critical, _ in bad):
        level = FAILED
    found = f"{rate:.1%} of {len(rows)} tests pass."
    return Finding(level, found, method, tuple(_test_item(*row) for row in bad[:MAX_ITEMS]))


def _test_item(name: str, outcome: str, is_critical: bool | None, failures: int | None) -> str:
    rows = f", {count_of(failures, 'row')}" if failures else ""
    return f"{'critical: ' if is_critical else ''}{name} {outcome}{rows}"


def selected_tests(history: DuckDBPyConnection, check: settings.DbtTests, now: datetime) -> Finding:
    """Check tests of which none may find a row."""
    method = f"the last result of the dbt tests of {check.select}"
    rows = _rows(
        history,
        "select name, outcome, is_critical, failures from latest where resource_type = 'test' and "
        f"({_selects(check.select)} or list_has_any(tested, (select coalesce(list(unique_id), []) from latest "
        f"where {_selects(check.select)}))) order by outcome, name",
    )
    if not rows:
        return Finding(NOT_RUN, f"No test of {check.select} has been run yet.", method)
    bad = [row for row in rows if row[1] != "succeeded"]
    if not bad:
        return Finding(PASSED, f"{count_of(len(rows), 'test')} found nothing.", method)
    found = sum(row[3] or 0 for row in bad)
    # A test that did not run says nothing about the data, so it does not count as passed.
    outcomes = {row[1] for row in bad}
    level = FAILED if "failed" in outcomes else WARNED if outcomes == {"warned"} else NOT_RUN
    if any(is_critical for _, _, is_critical, _ in bad):
        level = FAILED
    sentence = f"{len(bad)} of {len(rows)} tests do not pass; they found {count_of(found, 'row')}."
    return Finding(level, sentence, method, tuple(_test_item(*row) for row in bad[:MAX_ITEMS]))


def run_success(history: DuckDBPyConnection, check: settings.RunSuccess, now: datetime) -> Finding:
    """Check the share of builds that succeeded; the commands of one flow run are one run."""
    method = f"flow runs of the last {check.days} days that built something, in the history"
    ((total, good),) = _rows(
        history,
        "select count(*), count(*) filter (where is_good) from (select bool_and("
        "coalesce(run_outcome in ('succeeded', 'warned'), false)) as is_good "
        "from runs where command in ('dbt build', 'dbt run', 'dbt seed', 'dbt snapshot') and run_started_at >= $1 "
        # A run that was cancelled before anything of it failed is neither good nor bad.
        "group by coalesce(flow_run_id, run_id) "
        "having not bool_or(coalesce(run_outcome = 'cancelled', false)) or bool_or(run_outcome = 'failed'))",
        now - timedelta(days=check.days),
    )
    if not total:
        return Finding(NOT_RUN, f"There was no run in the last {check.days} days.", method)
    rate = good / total
    return Finding(_level(-rate, -check.warn_rate, -check.fail_rate), f"{rate:.1%} of {total} runs succeeded.", method)


def transformation_lag(history: DuckDBPyConnection, check: settings.Lag, now: datetime) -> Finding:
    """Measure how long the newest load of a source took, or has been taking so far, to reach each model."""
    method = "newest load of the sources upstream (dbt source freshness) to the first build of the model after it"
    wanted = _selects(check.select)
    rows = _rows(
        history,
        f"""
        with recursive
        edges as (select unique_id, unnest(depends_on) as parent from latest),
        upstream as (
            select unique_id as model, unique_id as reached
            from latest where resource_type = 'model' and {wanted}
            union
            select model, edges.parent from upstream inner join edges on edges.unique_id = upstream.reached
        ),
        loads as (
            select model, max(max_loaded_at) as loaded_at
            from upstream inner join latest on latest.unique_id = reached
            where resource_type = 'source' and max_loaded_at is not null group by model
        )
        select
            any_value(nodes.name),
            loaded_at,
            min(finished_at) filter (where finished_at >= loaded_at and outcome in ('succeeded', 'warned'))
        from loads inner join nodes on nodes.unique_id = model
        group by model, loaded_at
        """,
    )
    if not rows:
        return Finding(NOT_RUN, f"No model of {check.select} depends on a source whose age is known.", method)
    judged: list[tuple[str, str]] = []
    lags: list[float] = []
    for name, loaded_at, built_at in rows:
        seconds = ((built_at or now) - loaded_at).total_seconds()
        lags.append(seconds)
        how = "took" if built_at else "has waited" if seconds >= 0 else "is dated in the future by"
        level = _aged(seconds, check.warn_hours * 3600, check.fail_hours * 3600)
        judged.append((level, f"{name}: the newest load {how} {duration(seconds)}"))
    longest = f" The longest lag is {duration(max(lags))}."
    return _all_of(judged, (len(rows), "model"), "up to date", method, longest)


def model_durations(history: DuckDBPyConnection, check: settings.Durations, now: datetime) -> Finding:
    """Compare the seconds of each model's last builds with those of the builds before."""
    method = (
        f"median seconds of the last {check.recent} builds against the median of up to {check.baseline} before, "
        f"where they differ by more than {check.ignore_below_seconds:g} s"
    )
    # A build with a part of the rows is faster than any other.
    built = (
        "resource_type in ('model', 'snapshot', 'seed') and outcome = 'succeeded' "
        "and coalesce(selection, '') not like '%with --%'"
    )
    rows = _rows(
        history,
        f"""
        {_newest_first("seconds", f"{built} and not coalesce(is_full_refresh, false)")}
        select name,
            median(seconds) filter (where place <= $1) as recent,
            median(seconds) filter (where place > $1 and place <= $1 + $2) as usual
        from placed group by unique_id, name having count(*) > $1
        """,
        check.recent,
        check.baseline,
    )
    if not rows:
        return Finding(PASSED, f"Not enough data: no model has been built {check.recent + 1} times yet.", method)
    judged: list[tuple[str, str]] = []
    for name, recent, usual in sorted(rows, key=lambda row: row[2] - row[1]):
        is_noise = recent - usual < check.ignore_below_seconds
        ratio = recent / max(usual, 0.001)
        level = PASSED if is_noise else _level(ratio, check.warn_ratio, check.fail_ratio)
        judged.append((level, f"{name}: {duration(recent)} in place of {duration(usual)}"))
    return _all_of(judged, (len(rows), "model"), "as fast as before", method)


def built_recently(history: DuckDBPyConnection, check: settings.BuiltRecently, now: datetime) -> Finding:
    """Check when each named model was last built successfully."""
    method = "the last successful build of each model in the history"
    built = dict(
        _rows(
            history,
            "select name, max(finished_at) from nodes where outcome in ('succeeded', 'warned') "
            "and resource_type in ('model', 'snapshot') and command in ('dbt build', 'dbt run') "
            "and finished_at is not null group by 1",
        )
    )
    judged: list[tuple[str, str]] = []
    for name in check.models:
        if name not in built:
            judged.append((NOT_RUN, f"{name} has not been built yet"))
            continue
        age = (now - built[name]).total_seconds()
        judged.append((_aged(age, check.warn_hours * 3600, check.fail_hours * 3600), f"{name} is {_old(age)}"))
    return _all_of(judged, (len(check.models), "model"), "new enough", method)


def row_counts(history: DuckDBPyConnection, check: settings.RowCounts, now: datetime) -> Finding:
    """Compare the last count of each table with those before."""
    method = (
        f"count(*) by dbt show; modified z-score 0.6745 × |count − median| / MAD over the last {check.measurements} "
        f"counts, above {check.warn_score:g} a warning, above {check.fail_score:g} a failure"
    )
    rows = _rows(
        history,
        f"""
        {_newest_first("row_count")}
        select
            name,
            any_value(row_count) filter (where place = 1),
            median(row_count) filter (where place > 1),
            mad(row_count) filter (where place > 1),
            count(*) - 1
        from placed where place <= $1 + 1 group by unique_id, name order by name
        """,
        check.measurements,
    )
    if not rows:
        return Finding(NOT_RUN, "The rows of no table have been counted yet.", method)
    judged: list[tuple[str, str]] = []
    learning = 0
    for name, count, usual, spread, measurements in rows:
        if count == 0:
            judged.append((FAILED, f"{name} is empty"))
            continue
        if measurements < check.learning_below:
            learning += 1
            judged.append((PASSED, name))
            continue
        change = abs(count - usual)
        if change <= check.ignore_below_share * usual:
            judged.append((PASSED, name))
            continue
        # A table that never changed has a spread of 0; one row is the smallest difference of counts.
        score = 0.6745 * change / max(spread, 1.0)
        level = _level(score, check.warn_score, check.fail_score)
        judged.append((level, f"{name} has {count_of(count, 'row')}, usually {usual:,.0f} (score {score:.1f})"))
    told = f" {learning} have too few counts to compare." if learning else ""
    return _all_of(judged, (len(rows), "table"), "of their usual size", method, told)


def schedule_lateness(
    history: DuckDBPyConnection, check: settings.Lateness, now: datetime, waiting: Sequence[tuple[str, datetime]]
) -> Finding:
    """Check how late scheduled runs began, and how late those are that have not begun.

    Args:
        waiting: scheduled runs that should have begun: name, and when.
    """
    method = f"runs of the last {check.days} days in the history, and late runs on the Prefect server"
    begun = _rows(
        history,
        # Without the flow's start, the start of dbt counts.
        "select scheduled_at, coalesce(min(flow_started_at), min(run_started_at)) as began from runs "
        "where scheduled_at >= $1 group by flow_run_id, 1 having began is not null",
        now - timedelta(days=check.days),
    )
    if not begun and not waiting:
        return Finding(PASSED, f"Nothing was scheduled in the last {check.days} days, so nothing is late.", method)
    late = [(started - scheduled, f"the run of {scheduled:%Y-%m-%d %H:%M} UTC began") for scheduled, started in begun]
    late += [
        (now - scheduled, f"{name} should have begun at {scheduled:%H:%M} UTC, and is") for name, scheduled in waiting
    ]
    judged = [
        (
            _level(by.total_seconds(), check.warn_minutes * 60, check.fail_minutes * 60),
            f"{what} {duration(by.total_seconds())} late",
        )
        for by, what in sorted(late, reverse=True)
    ]
    return _all_of(judged, (len(late), "scheduled run"), "in time", method)


# The checks that need the history alone; lateness also needs the server.
BY_HISTORY: Mapping[str, Judge] = {
    "source_freshness": source_freshness,
    "last_run": last_run,
    "tests": tests,
    "run_success": run_success,
    "scd2_integrity": selected_tests,
    "reconciliation": selected_tests,
    "row_counts": row_counts,
    "transformation_lag": transformation_lag,
    "model_durations": model_durations,
    "built_recently": built_recently,
}


def duration(seconds: float) -> str:
    """Return a duration in its largest unit, such as "3 h" or "45 s"."""
    seconds = abs(seconds)
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _all_of(judged: Sequence[tuple[str, str]], what: tuple[int, str], how: str, method: str, more: str = "") -> Finding:
    """Return a finding with the worst of several outcomes, and every item that did not pass."""
    worst = max((level for level, _ in judged), key=_ORDER.index)
    bad = sorted((entry for entry in judged if entry[0] != PASSED), key=lambda entry: -_ORDER.index(entry[0]))
    said = f"{len(bad)} of {count_of(*what)} {are(len(bad))} not {how}." if bad else f"{all_of(*what)} {how}."
    found = said[0].upper() + said[1:]
    return Finding(worst, found + more, method, tuple(text for _, text in bad[:MAX_ITEMS]))


def _level(value: float, warn: float, fail: float) -> str:
    """Return the outcome of a value that is worse the larger it is."""
    # In this order, NaN does not pass.
    return FAILED if not value <= fail else WARNED if not value <= warn else PASSED


def _aged(seconds: float, warn: float, fail: float) -> str:
    """Return the outcome of an age; a moment in the future is a failure, as it proves nothing."""
    return NOT_RUN if seconds < -_FUTURE_SECONDS else _level(seconds, warn, fail)


def _old(seconds: float) -> str:
    return f"{duration(seconds)} old" if seconds >= 0 else f"of a moment that is {duration(seconds)} in the future"


def _selects(select: str) -> str:
    """Return the SQL condition of a dbt selection of tags and names."""
    words = select.split()
    tags = [word.removeprefix("tag:") for word in words if word.startswith("tag:")]
    names = [word for word in words if not word.startswith("tag:")]
    return f"(list_has_any(tags, {_list(tags)}) or name in ({', '.join(map(literal, names)) or 'null'}))"


def _newest_first(value: str, condition: str = "true") -> str:
    """Return the SQL of `placed`: a value of each node and run that has it, with `place` 1 for the newest."""
    return (
        f"with placed as (select unique_id, name, {value}, row_number() over (partition by unique_id "
        f"order by run_started_at desc, started_at desc) as place from nodes where {value} is not null and {condition})"
    )


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(literal, values))}]::varchar[]"


def _rows(history: DuckDBPyConnection, query: str, *values: object) -> list[tuple[Any, ...]]:
    return history.execute(query, list(values)).fetchall()
