"""The weekly full refresh: keep the old tables, rebuild, test, compare, and restore the old ones if anything fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import flow

from flows.alerts.hooks import with_alerts
from flows.engine.artifacts.manifest import DATA_TYPES
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import current_flow_run, flow_run_name, open_context
from flows.engine.context.state import state_of
from flows.engine.target.file_lock import one_writer
from flows.history.store import history_store
from flows.pipelines import tasks
from flows.report.artifacts import attaching, key_of
from flows.runbook.full_refresh.differences import Difference, compare_refreshed
from flows.runbook.full_refresh.journal import Kept, Refresh, RefreshJournal
from flows.runbook.full_refresh.settings import RefreshSettings, load_settings
from flows.runbook.kept_tables import KeptTables
from flows.runbook.project_tables import ProjectTables, read_declared
from flows.warehouses.door import open_warehouse
from flows.warehouses.warehouse import Warehouse
from infrastructure.commands import command
from infrastructure.errors import DbtRunFailed, RefreshUndone, TributaryError, preview
from infrastructure.plain_text import count_of, one_line
from infrastructure.private_files import private_folder

if TYPE_CHECKING:
    from flows.engine.context.project import Project
    from infrastructure.profiles import Profile

_DOCS = "docs"


@dataclass(frozen=True)
class RefreshReport:
    """The result of a full refresh.

    Attributes:
        steps: what was done or, in a dry run, would be.
        refresh_id: identifies the old tables; None where nothing was rebuilt.
        differences: figures of the tables before and after.
        docs: the documentation that was kept.
    """

    target: str
    steps: tuple[str, ...]
    refresh_id: str | None = None
    build: DbtResult | None = None
    differences: tuple[Difference, ...] = ()
    docs: Path | None = None
    keep_until: datetime | None = None


@with_alerts
@flow(flow_run_name=flow_run_name("full-refresh"), validate_parameters=True)
def weekly_full_refresh(  # noqa: PLR0913  (its form in Prefect's UI)
    target: str = "dev",
    select: str | None = None,
    project_dir: str | None = None,
    settings: str | None = None,
    dry_run: bool = False,
    recover: bool = False,
    docs: bool = True,
    wait: bool = True,
) -> RefreshReport:
    """Rebuild a target from scratch, and restore the old tables if that fails; safe to repeat.

    Readers see the old tables or the new ones, never none. A refresh that was killed is recovered first.

    Args:
        select: dbt selection of the tables to keep; those of the settings when None. Everything is rebuilt anyway.
        settings: a file like flows/runbook/full_refresh/refresh.yml, which is used when None.
        dry_run: show what would be done, and change nothing.
        recover: only restore the tables after a refresh that was killed.
        docs: generate the documentation site, and keep it.
        wait: wait while another run writes to the target; otherwise fail at once.

    Raises:
        DbtRunFailed: a node failed. The old tables are restored.
        RefreshUndone: a table was not rebuilt, a critical test did not pass, or a rebuilt table differs more from the
            old one than allowed. The old tables are restored.
        ConfigError: the settings or the project are wrong, or the old tables could not be restored yet.
    """
    chosen = load_settings(Path(settings) if settings else None)
    with open_context(target, project_dir) as run, one_writer(target, holder=run.holder, wait=wait):
        project, profile = run.project, run.profile
        steps = _Steps()
        _recover(project, profile, dry_run, steps)
        if recover:
            return RefreshReport(target, tuple(steps.done or ["There was nothing to recover."]))
        declared = read_declared(project, profile, select)
        if dry_run:
            _say_what_would_be_done(declared, profile, chosen, select is not None, steps)
            return RefreshReport(target, tuple(steps.done))
        return _refresh(project, profile, declared, chosen, select is not None, docs, steps)


class _Steps:
    """The steps that were done, each printed when it is done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def say(self, text: str) -> None:
        self.done.append(text)
        current_reporter().note(text)


@contextmanager
def _journal(profile: Profile) -> Iterator[tuple[Warehouse, RefreshJournal]]:
    # A DuckDB file is dbt's while dbt runs, so nothing is held open over it.
    with open_warehouse(profile) as tables:
        yield tables, RefreshJournal(tables, KeptTables(tables, profile), profile.target)


def _recover(project: Project, profile: Profile, dry_run: bool, steps: _Steps) -> None:
    with _journal(profile) as (_, journal):
        while unfinished := journal.unfinished():
            if dry_run:
                steps.say(f"Recover refresh {unfinished.refresh_id} first: its state is {unfinished.state}.")
                return
            names = [one.name for one in journal.kept(unfinished) if one.backup]
            known_as = state_of(project, profile.target, os.environ).project
            did = journal.recover(unfinished, built_since(known_as, profile.target, unfinished, names))
            steps.say(f"{did[0].upper()}{did[1:]}.")


def built_since(project: str, target: str, refresh: Refresh, names: Sequence[str]) -> str | None:
    """Return which of these tables another run has built since a refresh was interrupted, from the run history."""
    query = """
        select distinct name
        from nodes
        where
            outcome = 'succeeded'
            and resource_type in ('model', 'snapshot', 'seed')
            and started_at > $since
            and flow_run_id is distinct from $run_id
            and list_contains($names, name)
        order by name
    """
    with history_store(os.environ).reading(project, target) as history:
        asked = {"since": refresh.changed_at, "run_id": refresh.run_id, "names": list(names)}
        found = [str(name) for (name,) in history.execute(query, asked).fetchall()]
    return preview(found) or None


def _refresh(
    project: Project,
    profile: Profile,
    declared: ProjectTables,
    settings: RefreshSettings,
    is_selected: bool,
    docs: bool,
    steps: _Steps,
) -> RefreshReport:
    current_reporter().stage(f"keeping the old tables of {profile.target}")
    with _journal(profile) as (tables, journal):
        chosen, views = _chosen(tables, declared, settings, is_selected)
        flow_run = current_flow_run()
        refresh, kept = journal.back_up(chosen, views, settings.keep_days, str(flow_run.id) if flow_run else "")
        steps.say(
            f"Kept {count_of(len(chosen), 'table')} and the definitions of {len(kept) - len(chosen)} views as of now "
            f"(refresh {refresh.refresh_id})."
        )
        journal.set_state(refresh, "rebuilding")
    try:
        built = tasks.build(profile.target, full_refresh=True, project_dir=str(project.folder))
        require_proven(built, [one.name for one in kept if one.backup], profile.target)
        steps.say("Rebuilt and tested everything; snapshots were continued, as dbt has no full refresh for them.")
        differences = _compared(profile, declared, kept, settings)
        require_within(differences, profile.target)
        with _journal(profile) as (_, journal):
            journal.set_state(refresh, "verified")
    except BaseException as exc:
        _undo(profile, refresh, exc, steps)
        raise
    steps.say(f"Compared {count_of(len(kept) - len(views), 'table')} with the old ones: all within the tolerances.")
    place = _documented(project, profile, settings, refresh, steps) if docs else None
    _drop_expired(profile, refresh, steps)
    _close_incident(profile)
    return RefreshReport(
        profile.target, tuple(steps.done), refresh.refresh_id, built, tuple(differences), place, refresh.keep_until
    )


def _chosen(
    tables: Warehouse, declared: ProjectTables, settings: RefreshSettings, is_selected: bool
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return name and relation of the existing tables to copy and views to save."""
    versions = {one.unique_id for one in declared.versions()}
    wanted = [
        node
        for node in declared.tables()
        if is_selected
        or settings.backup == "all"
        or node.is_critical
        or node.materialized in ("incremental", "snapshot")
        or node.unique_id in versions
    ]
    there = [
        (node.name, str(node.relation))
        for node in wanted
        if tables.exists(str(node.relation)) and not tables.is_view(str(node.relation))
    ]
    views = [(node.name, node.relation) for node in declared.views() if node.relation]
    return there, views


def _compared(
    profile: Profile, declared: ProjectTables, kept: Sequence[Kept], settings: RefreshSettings
) -> list[Difference]:
    ids = {node.relation: unique_id for unique_id, node in declared.manifest.nodes.items() if node.relation}
    found: list[Difference] = []
    with open_warehouse(profile) as tables:
        for one in kept:
            if not one.backup:
                continue
            before, after = tables.measure(one.backup), tables.measure(one.relation)
            key = declared.row_key(ids[one.relation])
            has_key = bool(key) and all(any(name.lower() == column.lower() for name in after.columns) for column in key)
            missing = tables.missing_keys(key, one.backup, one.relation) if has_key else None
            found += compare_refreshed(one.name, before, after, missing, settings.tolerance(one.name))
    _publish(found, profile.target)
    return found


def require_proven(built: DbtResult, kept: Sequence[str], target: str) -> None:
    """Raise an error unless every kept table was rebuilt, and every critical test ran and passed.

    Raises:
        RefreshUndone: names those that were not: a table that dbt left out would equal its own copy.
    """
    came = {node.unique_id: node.outcome for node in built.nodes}
    rebuilt = {node.name for node in built.of("succeeded") if node.resource_type in DATA_TYPES}
    open_ = [f"{name} was not rebuilt" for name in kept if name not in rebuilt]
    open_ += [
        f"critical test {node.name} {came.get(node.unique_id, 'did not run')}"
        for node in built.artifacts.manifest.nodes.values()
        if node.is_test and node.is_critical and came.get(node.unique_id) != "succeeded"
    ]
    if open_:
        raise RefreshUndone(
            f"The full refresh of target {target} does not prove that its tables are right: {preview(open_)}. "
            "The old tables are restored. Fix these, and run it again."
        )


def require_within(differences: Sequence[Difference], target: str) -> None:
    """Raise an error unless every difference is within its tolerance.

    Raises:
        RefreshUndone: names those that are not.
    """
    beyond = [
        f"{one.table}: {one.what} {f'from {one.before} to ' if one.before else ''}{one.after} (allowed: {one.allowed})"
        for one in differences
        if not one.is_within
    ]
    if beyond:
        raise RefreshUndone(
            f"The full refresh of target {target} changed tables more than allowed: {preview(beyond)}. "
            "The old tables are restored. If the new ones are right, allow the difference in "
            "flows/runbook/full_refresh/refresh.yml, and run it again."
        )


def _undo(profile: Profile, refresh: Refresh, cause: BaseException, steps: _Steps) -> None:
    """Restore the old tables after any error, signals included."""
    with _journal(profile) as (_, journal):
        journal.restore(refresh)
    steps.say(f"The old tables of {profile.target} are restored, as they were before refresh {refresh.refresh_id}.")
    _open_incident(profile, cause)


def _documented(
    project: Project, profile: Profile, settings: RefreshSettings, refresh: Refresh, steps: _Steps
) -> Path | None:
    """Generate and keep the documentation site; a failure to do so does not undo the refresh."""
    try:
        made = tasks.docs(profile.target, project_dir=str(project.folder))
        home = state_of(project, profile.target, os.environ).folder / _DOCS
        place = home / f"{datetime.now(UTC):%Y-%m-%d}-{refresh.refresh_id}"
        private_folder(place)
        shutil.copy(made.target_path / "static_index.html", place / "index.html")
        for old in sorted(path for path in home.iterdir() if path.is_dir())[: -settings.keep_docs]:
            shutil.rmtree(old, ignore_errors=True)
    except (TributaryError, OSError) as exc:
        steps.say(f"The tables are good, but no documentation was generated: {one_line(str(exc))}")
        return None
    steps.say(f"Documentation: {place / 'index.html'}")
    return place / "index.html"


def _drop_expired(profile: Profile, refresh: Refresh, steps: _Steps) -> None:
    with _journal(profile) as (_, journal):
        journal.set_state(refresh, "kept")
        for old in journal.expired():
            journal.let_go(old)
            steps.say(f"Dropped the old tables of refresh {old.refresh_id}, whose time to keep is over.")


def _say_what_would_be_done(
    declared: ProjectTables, profile: Profile, settings: RefreshSettings, is_selected: bool, steps: _Steps
) -> None:
    with _journal(profile) as (tables, journal):
        chosen, views = _chosen(tables, declared, settings, is_selected)
        for name, relation in chosen:
            (row,) = tables.rows(f"select count(*) as counted from {relation}")
            steps.say(f"Copy {name}, {int(row['counted']):,} rows.")
        steps.say(f"Save the definitions of {len(views)} views.")
        steps.say(
            f"dbt build --full-refresh --target {profile.target}: {count_of(len(declared.tables()), 'table')}. "
            "Snapshots continue "
            "and are never rebuilt: dbt has no full refresh for them."
        )
        steps.say("Compare rows, keys and sums with the old tables; restore those if anything fails or differs.")
        steps.say(f"Generate the documentation, and keep the last {settings.keep_docs}.")
        for old in journal.expired():
            steps.say(f"Drop the old tables of refresh {old.refresh_id}.")
    steps.say(f"Keep the old tables for {settings.keep_days:g} days.")


def _open_incident(profile: Profile, cause: BaseException) -> None:
    from flows.alerts import Incident, open_incident

    is_stopped = not isinstance(cause, Exception)
    failed = f"{preview(list(cause.failed))} failed" if isinstance(cause, DbtRunFailed) and cause.failed else ""
    open_incident(
        Incident(
            key="full refresh/tables",
            severity="warning" if is_stopped else "error",
            title="The full refresh was stopped" if is_stopped else "The full refresh was undone",
            text=f"{failed or one_line(str(cause)) or 'It was stopped.'}\nThe old tables are restored.",
            target=profile.target,
            retry_command=command(f"full-refresh --target {profile.target}"),
        )
    )


def _close_incident(profile: Profile) -> None:
    from flows.alerts import close_incident

    close_incident("full refresh/tables", profile.target)


def table_rows(differences: Sequence[Difference]) -> list[dict[str, str]]:
    """Return a row per figure, with those first that are not allowed."""
    return [
        {
            "": "ok" if one.is_within else "beyond",
            "table": one.table,
            "what": one.what,
            "before": one.before,
            "after": one.after,
            "allowed": one.allowed,
        }
        for one in sorted(differences, key=lambda one: one.is_within)
    ]


def _publish(differences: Sequence[Difference], target: str) -> None:
    from prefect.artifacts import create_table_artifact

    with attaching():
        create_table_artifact(
            table_rows(differences), key=key_of("full-refresh", target), description="Tables before and after"
        )
