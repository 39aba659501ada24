"""Write the task graph and the streams that start it as SQL, and the script that removes them.

A stream forgets its changes as soon as a statement has read them. So the root task records which sources changed in a
table with a stream of its own, which only the last task reads: a graph that fails finds its work again at the next
start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from deployments.snowflake.task_graph import LAST, ROOT, Task, TaskGraph, leaves, task_name, within_limits

# After so many failed runs in a row, Snowflake suspends the root until a person resumes it.
_FAILURES = 10
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_QUOTED = re.compile(r'"(?:[^"]|"")+"')


@dataclass(frozen=True)
class TaskPlace:
    """Where the tasks are, and what they run with.

    Attributes:
        schedule: as Snowflake has it: "5 MINUTE", or "USING CRON 0 */6 * * * UTC".
        project: the dbt project object's name in the place's schema.
        location: the source of the object, such as a branch of a Git repository stage; None where it exists.
        error_integration: the notification integration for failures; None for no notification.
    """

    database: str
    schema: str
    warehouse: str
    schedule: str
    project: str
    location: str | None = None
    error_integration: str | None = None
    timeout_minutes: int = 60

    def name(self, name: str) -> str:
        """Return the full, quoted name of an object in this schema."""
        return ".".join(quoted(part) for part in (self.database, self.schema, name))


def quoted(name: str) -> str:
    """Return a quoted identifier; a simple one in upper case, which means the same as without quotes."""
    if _QUOTED.fullmatch(name):
        return name
    return '"' + (name.upper() if _PLAIN.fullmatch(name) else name.replace('"', '""')) + '"'


def text(value: str) -> str:
    """Return a string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def create(found: TaskGraph, place: TaskPlace) -> Iterator[str]:
    """Yield the statements that create everything, in order; run again, they update what differs."""
    pending, finished = place.name("tributary pending"), place.name("tributary finished")
    columns = "(source VARCHAR, changes INTEGER, noticed_at TIMESTAMP_LTZ"
    yield f"CREATE SCHEMA IF NOT EXISTS {quoted(place.database)}.{quoted(place.schema)}"
    if place.location:
        # With OR REPLACE its versions would be gone. A new version: ALTER DBT PROJECT … ADD VERSION FROM '…'.
        yield f"CREATE DBT PROJECT IF NOT EXISTS {place.name(place.project)} FROM {text(place.location)}"
    yield f"CREATE TABLE IF NOT EXISTS {pending} {columns}) CHANGE_TRACKING = TRUE"
    yield f"CREATE TABLE IF NOT EXISTS {finished} {columns}, finished_at TIMESTAMP_LTZ)"
    yield f"CREATE STREAM IF NOT EXISTS {place.name('tributary pending stream')} ON TABLE {pending} APPEND_ONLY = TRUE"
    for unique_id, relation in found.sources.items():
        # Existing rows count as changes, so that the first run builds them.
        yield f"CREATE STREAM IF NOT EXISTS {_stream(unique_id, place)} ON TABLE {relation} SHOW_INITIAL_ROWS = TRUE"
    # A graph is changed while it is suspended.
    yield f"ALTER TASK IF EXISTS {place.name(ROOT)} SUSPEND"
    yield _root(found, place, pending)
    yield from (_child(task, place) for task in in_order(_all(found, place, finished)))
    # The root last: from then on it runs.
    yield f"SELECT SYSTEM$TASK_DEPENDENTS_ENABLE({text(place.name(ROOT))})"


def drop(found: TaskGraph, place: TaskPlace) -> Iterator[str]:
    """Yield the statements that remove everything except the dbt project object and what was built."""
    yield f"ALTER TASK IF EXISTS {place.name(ROOT)} SUSPEND"
    tasks = in_order(_all(found, place, place.name("tributary finished")))
    for name in [*(task.name for task in reversed(tasks)), ROOT]:
        yield f"DROP TASK IF EXISTS {place.name(name)}"
    for unique_id in found.sources:
        yield f"DROP STREAM IF EXISTS {_stream(unique_id, place)}"
    yield f"DROP STREAM IF EXISTS {place.name('tributary pending stream')}"
    for name in ("tributary pending", "tributary finished"):
        yield f"DROP TABLE IF EXISTS {place.name(name)}"


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks so that each comes after those that it names."""
    by_name = {task.name: task for task in tasks}
    return [by_name[name] for name in TopologicalSorter({task.name: task.after for task in tasks}).static_order()]


def as_script(statements: Iterator[str], head: Sequence[str]) -> str:
    """Return statements as a script, with a comment at its head."""
    comments = "\n".join(f"-- {line}".rstrip() for line in head)
    return comments + "\n\n" + "\n\n".join(f"{statement};" for statement in statements) + "\n"


def _all(found: TaskGraph, place: TaskPlace, finished: str) -> list[Task]:
    """Return the tasks with the last one, which marks the pending changes as done."""
    stream = place.name("tributary pending stream")
    body = (
        f"INSERT INTO {finished} (source, changes, noticed_at, finished_at)\n"
        f"SELECT source, changes, noticed_at, CURRENT_TIMESTAMP() FROM {stream}"
    )
    return within_limits([*found.tasks, Task(LAST, body, tuple(leaves(found.tasks)))])


def _root(found: TaskGraph, place: TaskPlace, pending: str) -> str:
    streams = [_stream(unique_id, place) for unique_id in found.sources]
    # One statement reads them all, so that all are read or none.
    reads = [
        f"SELECT {text(unique_id.removeprefix('source.'))}, COUNT(*), CURRENT_TIMESTAMP() "
        f"FROM {_stream(unique_id, place)} HAVING COUNT(*) > 0"
        for unique_id in found.sources
    ]
    has_data = [f"SYSTEM$STREAM_HAS_DATA({text(stream)})" for stream in streams]
    has_data.append(f"SYSTEM$STREAM_HAS_DATA({text(place.name('tributary pending stream'))})")
    body = (
        f"INSERT INTO {pending} (source, changes, noticed_at)\n" + "\nUNION ALL\n".join(reads) if reads else "SELECT 1"
    )
    settings = [
        f"WAREHOUSE = {quoted(place.warehouse)}",
        f"SCHEDULE = {text(place.schedule)}",
        "ALLOW_OVERLAPPING_EXECUTION = FALSE",
        f"USER_TASK_TIMEOUT_MS = {place.timeout_minutes * 60_000}",
        f"SUSPEND_TASK_AFTER_NUM_FAILURES = {_FAILURES}",
    ]
    if place.error_integration:
        settings.append(f"ERROR_INTEGRATION = {quoted(place.error_integration)}")
    when = "WHEN " + "\n  OR ".join(has_data) + "\n" if streams else ""
    return f"CREATE OR REPLACE TASK {place.name(ROOT)}\n  " + "\n  ".join(settings) + f"\n{when}AS\n{body}"


def _child(task: Task, place: TaskPlace) -> str:
    after = ", ".join(place.name(name) for name in task.after or (ROOT,))
    comment = f"  COMMENT = {text(task.comment)}\n" if task.comment else ""
    return (
        f"CREATE OR REPLACE TASK {place.name(task.name)}\n"
        f"  WAREHOUSE = {quoted(place.warehouse)}\n"
        f"  USER_TASK_TIMEOUT_MS = {place.timeout_minutes * 60_000}\n"
        f"{comment}  AFTER {after}\nAS\n{task.body}"
    )


def _stream(unique_id: str, place: TaskPlace) -> str:
    return place.name(task_name(f"changes of {unique_id.removeprefix('source.')}"))
