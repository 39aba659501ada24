"""The rows that failing tests found: read with dbt's own `show`, so through any warehouse's adapter.

`--store-failures` would leave tables behind in the warehouse, personal data among them, and would have to be on before
a test fails. `show` reads a few rows afterwards and leaves nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from flows.alerts.send.delivery import SendDeadline
from flows.engine.artifacts.results import FailingRows
from flows.engine.context.command import DbtCommand, Place
from flows.engine.context.events import DbtEvent
from flows.engine.context.state import dbt_log_folder, state_of
from flows.engine.process.door import Dbt
from flows.engine.target.file_lock import held_files

if TYPE_CHECKING:
    from flows.alerts.routes import FailingRowsSettings
    from flows.engine.artifacts.manifest import Manifest
    from flows.engine.artifacts.results import NodeResult
    from flows.engine.context.project import Project
    from infrastructure.profiles import Profile

MASK = "•••"
_STOP_SECONDS = 3.0
# As many as a message tells in detail; dbt starts once for each, which takes some two seconds.
TEST_LIMIT = 3
# Column names under which dbt's generic tests return their counts: no values of a user's table.
_COUNTS = frozenset({"n_records", "failures"})


def fetch_failing_rows(
    tests: Sequence[NodeResult],
    manifest: Manifest,
    project: Project,
    profile: Profile,
    vars: Mapping[str, Any],
    settings: FailingRowsSettings,
    run_path: Path,
) -> dict[str, FailingRows]:
    """Read some rows of failed tests from the warehouse; rows that do not arrive in time are left out.

    Args:
        settings: how many rows, and how long to wait for them.
        run_path: the run's folder, for dbt's log.
    """
    state = state_of(project, profile.target, os.environ)
    place = Place(
        project=project.folder,
        profiles=state.write_profiles(profile.profiles_yml(project.profile)),
        profile=project.profile,
        target_path=state.target_path,
        log_path=dbt_log_folder(run_path) / "show",
    )
    dbt = Dbt(project, profile)
    deadline = SendDeadline.after(settings.patience_seconds)
    found: dict[str, FailingRows] = {}
    # One after the other: dbt 1.11.16 shows a single node at a time, and a DuckDB file has a single writer.
    for test in list(tests)[:TEST_LIMIT]:
        if deadline.left_seconds:
            # Without --no-write-json dbt would put its own artifacts in the place of the run's.
            # What it found; for `not_null` the rows, not a column of nulls.
            whole = manifest.null_rows(test.unique_id)
            asked = [*(("--inline", whole) if whole else ()), "--limit", str(settings.limit), "--output", "json"]
            nodes = None if whole else (test.unique_id,)
            command = DbtCommand("show", vars=vars, flags=(*asked, "--no-write-json"), nodes=nodes)
            rows = _show(dbt, command, place, deadline.left_seconds)
            if rows and rows.rows:
                found[test.unique_id] = rows
    return found


def _show(dbt: Dbt, command: DbtCommand, place: Place, timeout_seconds: float) -> FailingRows | None:
    with dbt.run(command, place, held_files()) as child:
        timer = threading.Timer(timeout_seconds, child.interrupt, (_STOP_SECONDS,))
        timer.daemon = True
        timer.start()
        try:
            return next((rows for rows in map(_parse_rows, dbt.events(child)) if rows), None)
        finally:
            timer.cancel()


def _parse_rows(event: DbtEvent) -> FailingRows | None:
    """Return the rows in a line of dbt's output; None where it has none."""
    if event.name != "ShowNode" or not event.data:
        return None
    try:
        rows = cast(list[dict[str, Any]], orjson.loads(event.data["preview"]))
        columns = tuple(rows[0]) if rows else ()
        values = tuple(tuple(_text(row.get(column)) for column in columns) for row in rows)
        return FailingRows(columns, values)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def why_hidden(manifest: Manifest, unique_id: str, settings: FailingRowsSettings) -> str:
    """Return why the rows of a test may not be shown; empty when they may."""
    if not settings.limit:
        return "Rows are not shown: routes.yml sets failing_rows.limit to 0."
    if not settings.personal_data and manifest.is_personal(unique_id):
        return "Its rows are not shown: they contain personal data."
    return ""


def mask_rows(rows: FailingRows, manifest: Manifest, unique_id: str, settings: FailingRowsSettings) -> FailingRows:
    """Return the rows with the values of personal and masked columns replaced."""
    is_masked = _masking(manifest, unique_id, settings)
    hidden = [is_masked(column.lower()) for column in rows.columns]
    return FailingRows(
        rows.columns,
        tuple(
            tuple(MASK if hide and value != "null" else value for value, hide in zip(row, hidden, strict=True))
            for row in rows.rows
        ),
    )


def _masking(manifest: Manifest, unique_id: str, settings: FailingRowsSettings) -> Callable[[str], bool]:
    personal = set[str]() if settings.personal_data else manifest.personal_columns(unique_id)
    known = manifest.known_columns(unique_id)

    def is_masked(column: str) -> bool:
        if any(fnmatchcase(column, pattern.lower()) for pattern in settings.masked_columns):
            return True
        if not personal or column in _COUNTS:
            return False
        # Beside personal columns, a column without a description may be one of them under another name.
        return column in personal or column not in known

    return is_masked


def _text(value: object) -> str:
    if value is None:
        return "null"
    return value if isinstance(value, str) else orjson.dumps(value).decode()
