"""The contents of the report: queries of the history, as plain values for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flows.engine.context.events import HOOK
from flows.history import health_rules as health_checks
from flows.history.health_settings import Durations

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Document = dict[str, Any]

SHOWN_RUNS = 60
SHOWN_MODELS = 25
TREND_BUILDS = 20
TEBIBYTE = 2**40
_BUILDS = "command in ('dbt build', 'dbt run')"


@dataclass(frozen=True)
class Contents:
    """Everything that the page shows, of one project on one target.

    Attributes:
        now: UTC without a zone, as all times here.
        last: the last build; None before the first.
        runs: the last builds, oldest first.
        nodes: those of the last build, in the order in which they began; hooks among them.
        critical_path: the chain of nodes that decided how long the last build took, in order; no hooks.
        failing: what fails or warns now, with `since` and `times`.
        price_per_tebibyte: what the warehouse charges; None where it was not given.
    """

    project: str
    target: str
    warehouse: str
    now: datetime
    days: int
    last: Document | None
    runs: Sequence[Document]
    nodes: Sequence[Document]
    critical_path: Sequence[Document]
    failing: Sequence[Document]
    models: Sequence[Document]
    tests: Document
    test_runs: Sequence[Document]
    sources: Sequence[Document]
    costs: Sequence[Document]
    success: Document
    price_per_tebibyte: float | None = None

    @property
    def status(self) -> str:
        """Return the status in one word: failing, warnings, healthy or unknown."""
        if self.last is None:
            return "unknown"
        is_stale = any(source["outcome"] == "failed" for source in self.sources)
        failed = any(node["outcome"] in ("failed", "skipped") for node in self.failing)
        if failed or is_stale or self.last["run_outcome"] == "failed":
            return "failing"
        is_late = any(source["outcome"] == "warned" for source in self.sources)
        is_undone = self.last["run_outcome"] == "cancelled"
        return "warnings" if self.failing or is_late or is_undone else "healthy"


def read_contents(
    history: DuckDBPyConnection,
    project: str,
    target: str,
    now: datetime,
    days: int,
    price_per_tebibyte: float | None = None,
) -> Contents:
    """Query the history for everything that the report shows.

    Args:
        history: a connection whose views have this project and target only.
        days: how far back success, durations and costs count.
    """
    since = now - timedelta(days=days)
    runs = documents(
        history,
        f"from (from runs where {_BUILDS} order by run_started_at desc, run_id desc limit {SHOWN_RUNS}) "
        "order by run_started_at, run_id",
    )
    last = runs[-1] if runs else None
    nodes = _nodes_of(history, last) if last else []
    return Contents(
        project=project,
        target=target,
        warehouse=last["warehouse"] if last else "",
        now=now,
        days=days,
        last=last,
        runs=runs,
        nodes=nodes,
        critical_path=critical_path(nodes),
        failing=_failing(history),
        models=_models(history, since),
        tests=_tests(history),
        test_runs=_test_runs(history),
        sources=_sources(history),
        costs=_costs(history, since, price_per_tebibyte),
        success=_success(history, since),
        price_per_tebibyte=price_per_tebibyte,
    )


def is_hook(node: Mapping[str, Any]) -> bool:
    """Say whether this is a statement of on-run-start or on-run-end."""
    return node["resource_type"] == HOOK


def critical_path(nodes: Sequence[Document]) -> list[Document]:
    """Return the chain of nodes, each waiting for the one before, that ended last: more threads don't shorten it.

    Hooks are no part of it: they run before the first node and after the last one.
    """
    by_id = {node["unique_id"]: node for node in nodes if not is_hook(node)}
    node = max(by_id.values(), key=lambda each: each["finished_at"], default=None)
    path: list[Document] = []
    # A file of another version could contain a circle; each node is taken once.
    while node is not None and node not in path:
        path.append(node)
        node = by_id.get(node["waited_for"] or "")
    return path[::-1]


def _nodes_of(history: DuckDBPyConnection, run: Mapping[str, Any]) -> list[Document]:
    # Nodes that a resumed run took over began before it and do not count into its time.
    found = documents(
        history,
        "select unique_id, name, resource_type, outcome, thread, started_at, finished_at, seconds, queue_seconds, "
        "waited_for, coalesce(rows_affected, failures) as rows, attempts "
        "from nodes where run_id = $1 and started_at >= run_started_at order by started_at, finished_at",
        run["run_id"],
    )
    begin = found[0]["started_at"] if found else None
    for node in found:
        node["start"] = (node["started_at"] - begin).total_seconds()
        node["end"] = node["start"] + node["seconds"]
    return found


def _failing(history: DuckDBPyConnection) -> list[Document]:
    return documents(
        history,
        """
        with good as (
            select unique_id, max(finished_at) as good_at from nodes where outcome = 'succeeded' group by 1
        )
        select
            latest.unique_id, any_value(latest.name) as name, any_value(latest.resource_type) as resource_type,
            any_value(latest.outcome) as outcome, any_value(latest.owner) as owner,
            any_value(latest.is_critical) as is_critical, any_value(latest.failures) as failures,
            any_value(latest.message) as message, min(nodes.started_at) as since, count(*) as times,
            any_value(good_at) as good_at
        from latest
        left join good using (unique_id)
        inner join nodes on nodes.unique_id = latest.unique_id and nodes.outcome is not null
            and (good_at is null or nodes.started_at > good_at)
        where latest.outcome in ('failed', 'skipped', 'warned') and latest.resource_type <> 'source'
        group by latest.unique_id
        order by list_position(['failed', 'warned', 'skipped'], any_value(latest.outcome)), since, name
        """,
    )


def _models(history: DuckDBPyConnection, since: datetime) -> list[Document]:
    found = documents(
        history,
        f"""
        with built as (
            select unique_id, name, seconds, started_at, rows_affected
            from nodes
            where resource_type in ('model', 'snapshot', 'seed') and outcome = 'succeeded' and started_at >= $1
                and {_BUILDS}
        )
        select
            unique_id, any_value(name) as name, count(*) as builds, arg_max(seconds, started_at) as last_seconds,
            median(seconds) as usual_seconds, max(seconds) as longest_seconds, sum(seconds) as total_seconds,
            list({{'seconds': seconds, 'outcome': 'succeeded'}} order by started_at desc)[:{TREND_BUILDS}] as trend
        from built group by unique_id order by usual_seconds desc, name
        """,
        since,
    )
    slower = _regressions(history)
    # Regressions are shown however quick the model is.
    shown = [model for number, model in enumerate(found) if number < SHOWN_MODELS or model["name"] in slower]
    return [{**model, "trend": model["trend"][::-1], "regression": slower.get(model["name"])} for model in shown]


def _regressions(history: DuckDBPyConnection) -> dict[str, str]:
    """Return the models that got slower, by the rule of the health check: name → sentence."""
    check = Durations(normal="as before", action="look")
    finding = health_checks.model_durations(history, check, datetime.min)
    return {name: text for name, _, text in (item.partition(": ") for item in finding.items)}


def _tests(history: DuckDBPyConnection) -> Document:
    (row,) = documents(
        history,
        "select count(*) as total, count(*) filter (where outcome = 'succeeded') as passed, "
        "count(*) filter (where outcome = 'warned') as warned, count(*) filter (where outcome = 'failed') as failed, "
        "count(*) filter (where outcome = 'skipped') as skipped from latest "
        "where resource_type in ('test', 'unit_test')",
    )
    return row


def _test_runs(history: DuckDBPyConnection) -> list[Document]:
    return documents(
        history,
        f"""
        select * from (
            select
                run_id, run_started_at, count(*) as total, count(*) filter (where outcome = 'warned') as warned,
                count(*) filter (where outcome = 'failed') as failed,
                count(*) filter (where outcome = 'skipped') as skipped
            from nodes
            where resource_type in ('test', 'unit_test') and command in ('dbt build', 'dbt test')
            group by run_id, run_started_at order by run_started_at desc, run_id desc limit {SHOWN_RUNS}
        ) order by run_started_at, run_id
        """,
    )


def _sources(history: DuckDBPyConnection) -> list[Document]:
    return documents(
        history,
        """
        select
            unique_id, split_part(unique_id, '.', 3) || '.' || name as name,
            owner, outcome, status, max_loaded_at, checked_at,
            age_seconds, coalesce(warn_after_seconds, error_after_seconds) as promised_seconds, error_after_seconds
        from latest where resource_type = 'source'
        order by list_position(['failed', 'warned', 'succeeded'], outcome),
            age_seconds / coalesce(warn_after_seconds, error_after_seconds) desc nulls first, name
        """,
    )


def _costs(history: DuckDBPyConnection, since: datetime, price: float | None) -> list[Document]:
    found = documents(
        history,
        f"""
        select
            unique_id, any_value(name) as name, count(*) as times, sum(bytes_processed) as bytes_processed,
            sum(coalesce(bytes_billed, bytes_processed)) as bytes_billed, sum(slot_milliseconds) / 3600000 as slot_hours
        from nodes
        where started_at >= $1 and (bytes_processed is not null or slot_milliseconds is not null)
        group by unique_id order by bytes_billed desc nulls last, slot_hours desc nulls last limit {SHOWN_MODELS}
        """,
        since,
    )
    for row in found:
        row["price"] = row["bytes_billed"] / TEBIBYTE * price if price and row["bytes_billed"] is not None else None
    return found


def _success(history: DuckDBPyConnection, since: datetime) -> Document:
    (row,) = documents(
        history,
        # A run that was cancelled is neither good nor bad.
        "select count(*) filter (where run_outcome is distinct from 'cancelled') as total, "
        "count(*) filter (where run_outcome not in ('failed', 'cancelled')) as good, "
        f"median(seconds) as usual_seconds from runs where {_BUILDS} and run_started_at >= $1",
        since,
    )
    return row


def documents(history: DuckDBPyConnection, query: str, *values: object) -> list[Document]:
    """Return the rows of a query as documents."""
    found = history.execute(query, list(values))
    names = [entry[0] for entry in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
