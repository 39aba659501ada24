"""Record a finished command in the history; a failure to do so never fails the command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prefect.context import FlowRunContext

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import State
from flows.history.cut_off import cut_off_runs
from flows.history.rows import FlowTimes, Row, RunPlace, rows_of
from flows.history.store import history_store
from flows.history.warehouse_table import add_run, table_schema
from infrastructure.plain_text import one_line

if TYPE_CHECKING:
    from infrastructure.profiles import Profile


def record(result: DbtResult, command: DbtCommand, profile: Profile, error: Exception | None = None) -> None:
    """Add a run to the history, and to the warehouse's table where that is set up; failures are noted, not raised.

    An earlier run that was killed is added as well. Call it while the target is locked: it reads what dbt left in the
    target's folder, and a run in progress looks like one that was killed.

    Args:
        error: what the command failed with; None when it did not.
    """
    rows = record_run(result, command, State(result.target_path.parent).project, profile.warehouse, error)
    schema = table_schema(os.environ)
    if not rows or not schema:
        return
    try:
        add_run(profile, schema, rows)
    except Exception as exc:  # noqa: BLE001  (the run's outcome must not hang on its history)
        current_reporter().note(f"This run is missing in the history's table: {one_line(str(exc))}")


def record_run(
    result: DbtResult, command: DbtCommand, project: str, warehouse: str, error: Exception | None = None
) -> list[Row]:
    """Add a run to the history and return its rows; no rows when that failed, which is noted."""
    try:
        state, store = State(result.target_path.parent), history_store(os.environ)
        manifest, place = result.artifacts.manifest_if_any, RunPlace(project, warehouse)
        for cut in cut_off_runs(state, but_not=result.run_path):
            store.write(rows_of(cut.result, cut.command, place, manifest, error=cut.error))
        freshness = result.artifacts.sources(since=result.started_at)
        rows = rows_of(result, command, place, manifest, freshness, _flow_times(), error)
        store.write(rows)
        return rows
    except Exception as exc:  # noqa: BLE001  (the run's outcome must not hang on its history)
        current_reporter().note(f"This run is missing in the history: {one_line(str(exc))}")
        return []


def _flow_times() -> FlowTimes | None:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return None
    flow_run = context.flow_run
    # Every flow run has an expected start; only that of a schedule counts as a promise.
    scheduled_at = flow_run.expected_start_time if flow_run.auto_scheduled else None
    return FlowTimes(str(flow_run.id), context.start_time, scheduled_at)
