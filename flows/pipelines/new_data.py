"""Build only if there is new data: check the sources, and build what depends on those with newer data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

import orjson
from prefect import State, flow
from prefect.states import Completed

from flows.alerts.hooks import with_alerts
from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.events import name_in
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import RunContext, flow_run_name, open_context
from flows.engine.target.file_lock import one_writer
from flows.pipelines import tasks
from flows.pipelines.selections import downstream
from flows.pipelines.transform import Transformation, build_and_test
from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.private_files import write_whole

# Beside dbt's artifacts of the target: the newest row of each source table at its last build.
_FILE = "built_from.json"


@dataclass(frozen=True)
class NewData:
    """The result of a check of the sources.

    Attributes:
        newer: source tables, as source.table, with newer data than at the last build.
        transformation: None where nothing was newer, so that nothing was built.
    """

    target: str
    freshness: DbtResult
    newer: tuple[str, ...]
    transformation: Transformation | None


@with_alerts
@flow(flow_run_name=flow_run_name("new-data"), validate_parameters=True)
def transform_new_data(target: str = "prod", project_dir: str | None = None) -> NewData | State[NewData]:
    """Build and test what depends on source tables with newer data than last time; otherwise do nothing.

    A table counts as newer when its newest row (max_loaded_at, from dbt's freshness check) is newer than at the last
    build by this flow. A source that is too old does not fail this flow: the freshness check alerts about it. The next
    run tries a failed build again.

    Raises:
        ConfigError: no source of the project says when its rows were loaded.
        DbtRunFailed: a model or a critical test failed.
    """
    with open_context(target, project_dir) as run:
        return _transform(run)


def _transform(run: RunContext) -> NewData | State[NewData]:
    project, target, project_dir = run.project, run.target, str(run.project.folder)
    # One lock for checking and building: the next check finds what a loader adds in between.
    with one_writer(target, holder=run.holder):
        checked = _look(target, project_dir)
        if not checked.nodes:
            raise ConfigError(
                f"No source of the dbt project {project.name} has a freshness, so new data can't be recognised. "
                "Give sources `config: {loaded_at_field: …, freshness: {warn_after: …}}`."
            )
        there = loaded_at(checked.artifacts)
        path = run.state.folder / _FILE
        newer = newer_than(there, read_built_from(path))
        names = tuple(name_in(unique_id) for unique_id in newer)
        if not newer:
            said = f"No new data: none of {len(there)} source tables is newer than what was last built."
            current_reporter().note(said)
            return Completed(message=said, data=NewData(target, checked, (), None))
        current_reporter().note(f"New data in {', '.join(names)}.")
        build, tests = build_and_test(downstream(names), target, project_dir)
        write_built_from(path, there)
    built = Transformation(names, target, str(run.flow_run.id) if run.flow_run else None, build, tests)
    return NewData(target, checked, names, built)


def newer_than(there: Mapping[str, datetime], built_from: Mapping[str, datetime]) -> list[str]:
    """Return the source tables that are newer than at their last build, or were never built from."""
    return sorted(key for key, at in there.items() if key not in built_from or at > built_from[key])


def loaded_at(artifacts: Artifacts) -> dict[str, datetime]:
    """Return when the newest row of each source table was loaded, by unique id; a table without rows is left out.

    Raises:
        ConfigError: dbt left no freshness check, or one that could not look at every table.
    """
    ages = artifacts.sources()
    if not ages or any(age.max_loaded_at is None for age in ages.values()):
        raise ConfigError(
            f"dbt left no readable result of its freshness check in {artifacts.folder}. Run it once more."
        )
    return {unique_id: age.loaded_at for unique_id, age in ages.items() if age.loaded_at}


def read_built_from(path: Path) -> dict[str, datetime]:
    """Return the newest row of each source table at its last build; empty before the first build."""
    try:
        document = cast(dict[str, str], orjson.loads(path.read_bytes()))
        return {unique_id: datetime.fromisoformat(at) for unique_id, at in document.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        # Without it everything counts as new, which costs one build.
        return {}


def write_built_from(path: Path, there: Mapping[str, datetime]) -> None:
    """Save the newest row of each source table, whole or not at all."""
    write_whole(path, orjson.dumps({**read_built_from(path), **there}))


def _look(target: str, project_dir: str | None) -> DbtResult:
    try:
        return tasks.source_freshness(target, project_dir=project_dir)
    except DbtRunFailed as exc:
        if exc.finished_result is None:
            raise
        return exc.finished_result
