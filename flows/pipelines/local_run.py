"""What `tributary run` does before the pipeline: find a server, create the blocks, load raw data."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, cast

from flows.engine.changed.freshness import may_check
from flows.engine.changed.last_success import latest_folder
from flows.engine.context.options import RunOptions
from flows.engine.context.project import Project, project_to_run
from flows.engine.context.project_files import yaml_mapping
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import RunContext, open_context
from flows.engine.context.state import state_of
from flows.engine.process.door import Dbt
from flows.engine.process.process import dbt_ahead
from flows.engine.target.file_lock import one_writer
from infrastructure.commands import command, program
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.plain_text import count_of
from infrastructure.targets.target_file import default_target
from infrastructure.workspace import ROOT, targets_file, workspace

if TYPE_CHECKING:
    from flows.pipelines.full import PipelineResult
    from infrastructure.profiles import Profile

SAMPLE_ROWS = 20_000
SAMPLE_SEED = 1


@dataclass(frozen=True)
class Request:
    """The options of the command line.

    Attributes:
        with_data: load commits and sample data first; None where the target and the project decide.
    """

    target: str
    project_dir: str | None = None
    with_data: bool | None = None
    options: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a local run: its results, the target's profile and the Prefect server."""

    pipeline: PipelineResult
    profile: Profile
    api_url: str | None


def run_locally(request: Request) -> Outcome:
    """Run the pipeline in this process, and create everything that a fresh machine lacks.

    Raises:
        TributaryError: see `dbt_full_pipeline`.
    """
    from infrastructure.profiles import declared_profile

    # Before anything slow: a mistyped folder should not cost the wait for a server.
    project = project_to_run(request.project_dir)
    # With --changed there may be nothing to build.
    options = request.options
    state = state_of(project, request.target, os.environ)
    if declared := declared_profile(request.target):
        Dbt(project, declared).require_able(options.command("build"))
    ahead = (not options.changed) + (options.freshness and may_check(state))
    adapter, dbt = _adapter_and_dbt(request.target)
    # A target that is nowhere declared is probably mistyped, which is said sooner without a dbt that is on its way.
    with dbt_ahead(ahead if adapter else 0, adapter, dbt):
        return _run_with_a_server(request, project)


def _run_with_a_server(request: Request, project: Project) -> Outcome:
    from infrastructure.profiles import declared_profile, make_folder
    from infrastructure.server.local_server import prefect_server
    from infrastructure.setup_profiles import ensure_target

    reporter = current_reporter()
    if sentence := unread_profile(project, request.target, os.environ):
        reporter.note(sentence)
    declared = declared_profile(request.target)
    is_loaded = False

    def load_meanwhile() -> None:
        nonlocal is_loaded
        if declared:
            make_folder(declared)
            _load_if_wanted(request, RunContext(project, declared))
            is_loaded = True

    with prefect_server(reporter.note, load_meanwhile, [request.target]) as api_url:
        for sentence in ensure_target(request.target):
            reporter.note(sentence)
        with open_context(request.target, project) as run:
            if not is_loaded:
                _load_if_wanted(request, run)
            return Outcome(_run_pipeline(request), run.profile, api_url)


def unread_profile(project: Project, target: str, environ: Mapping[str, str]) -> str:
    """Return a sentence if the project's profile is in a profiles.yml, which is not read; empty where it is in none.

    Raises:
        ConfigError: targets.yml can't be read.
    """
    from infrastructure.targets.from_profiles import profiles_places
    from infrastructure.targets.target_file import load_targets

    if load_targets().profile == project.profile:
        return ""  # The targets are those of this profile.
    for path in profiles_places(project.folder, None, environ):
        if project.profile in yaml_mapping(path):
            return (
                f"Profile {project.profile} in {path} is not read: target {target} is that of {targets_file()}. To use "
                f"yours: {program()} init {shlex.quote(os.path.relpath(project.folder))}"
            )
    return ""


def _adapter_and_dbt(target: str) -> tuple[str | None, str | None]:
    from infrastructure.targets.target_file import load_targets

    declared = load_targets().targets.get(target)
    return (declared.warehouse, declared.dbt) if declared else (None, None)


def _load_if_wanted(request: Request, run: RunContext) -> None:
    was_built = latest_folder(run.state) is not None
    if wants_data(request, run.profile.warehouse, was_built):
        with one_writer(run.target, holder=f"loading data, process {os.getpid()}", wait=request.options.wait):
            load_data(run.profile)


def _run_pipeline(request: Request) -> PipelineResult:
    import httpx

    from flows.pipelines.full import dbt_full_pipeline

    try:
        asked = request.options.parameters(list(signature(dbt_full_pipeline.fn).parameters))
        done = dbt_full_pipeline(target=request.target, project_dir=request.project_dir, **asked)
        return cast("PipelineResult", done)
    except httpx.HTTPError as exc:
        from infrastructure.server.client import in_words

        # Before anything was done: from then on the run does not need the server, and its last state is kept.
        raise in_words(exc) from (None if isinstance(exc, httpx.HTTPStatusError) else exc)


def wants_data(request: Request, warehouse: str, was_built: bool = False) -> bool:
    """Return whether to load data first: by option, else for this repository's project on the embedded warehouse."""
    if request.with_data is not None:
        return request.with_data
    # A resumed run keeps the data that it started with, and a run with --changed keeps what is there.
    is_first = not request.options.resume and not (request.options.changed and was_built)
    is_of_the_example = request.project_dir is None and workspace().is_example
    return warehouse == "duckdb" and is_of_the_example and is_first


def load_data(profile: Profile) -> None:
    """Load the commits of this repository, and sample data for marketing and payroll.

    Raw tables with other rows are left alone.
    """
    from flows.loaders.git.load import ingest_git
    from flows.loaders.git.sample_commits import write_sample_commits
    from flows.loaders.sample_data import count_sample_rows, write_sample_data

    reporter = current_reporter()
    reporter.stage("loading data")
    try:
        commits = ingest_git(profile, [str(ROOT)])
        reporter.note(f"Loaded {count_of(commits.commit_count, 'commit')} of this repository, {commits.added:,} new.")
    except (ConfigError, UpstreamUnavailable) as exc:
        there = write_sample_commits(profile)
        instead = f" but {there:,} sample commits" if there else ""
        reporter.note(f"No commits of this repository were loaded{instead}: {exc}")
    there = count_sample_rows(profile)
    if there and abs(there - SAMPLE_ROWS) > SAMPLE_ROWS // 10:
        # A user asked for another amount, which must not be replaced.
        reporter.note(f"Kept the {count_of(there, 'row')} of sample data; `sample-data` replaces them.")
        return
    try:
        sample = write_sample_data(profile, rows=SAMPLE_ROWS, seed=SAMPLE_SEED)
        reporter.note(f"Wrote {count_of(sample.rows, 'row')} of sample data for marketing and payroll.")
    except ConfigError as exc:
        reporter.note(f"No sample data was written: {exc}")


def next_steps(outcome: Outcome, request: Request) -> list[tuple[str, str]]:
    """Return the next steps: purpose and command."""
    steps: list[tuple[str, str]] = []
    if look := look_command(outcome):
        steps.append(("Look at the data", look))
    if outcome.api_url is None:
        steps.append(("See the run, and start the next in seconds", "uv run prefect server start --background"))
    else:
        page = f"{outcome.api_url.removesuffix('/api')}/runs/flow-run/{outcome.pipeline.flow_run_id}"
        steps.append(("See the run in the browser", page))
    if not request.options.docs:
        steps.append(("Read the documentation of every table", f"{_again(request)} --docs"))
    if workspace().is_example:
        steps.append(("Run your own dbt project", f"{program()} init ../your_project"))
    steps.append(("Run on your own warehouse", f"edit {targets_file()}, then:"))
    steps.append(("", command("setup --plan")))
    return steps


def _again(request: Request) -> str:
    words = ["run"]
    if request.target != default_target():
        words += ["--target", request.target]
    if request.project_dir:
        is_named = request.project_dir in workspace().places.projects
        words += ["--project" if is_named else "--project-dir", request.project_dir]
    if request.options.select:
        words += ["--select", request.options.select]
    return command(shlex.join(words))


def look_command(outcome: Outcome) -> str | None:
    """Return a command that shows rows of the last table that was built, for a DuckDB file; None elsewhere."""
    if outcome.profile.warehouse != "duckdb":
        return None
    built = [
        node
        for node in outcome.pipeline.build.nodes
        if node.resource_type == "model" and node.outcome == "succeeded" and node.relation
    ]
    tables = [node for node in built if node.materialized in ("table", "incremental")] or built
    if not tables:
        return None
    # The name without its database: that one is named after the file.
    relation = ".".join(part.strip('"') for part in str(tables[-1].relation).split(".")[-2:])
    path = os.path.relpath(str(outcome.profile.output["path"]))
    query = f"duckdb.connect('{path}', read_only=True).sql('from {relation} limit 10').show()"
    return f'uv run python -c "import duckdb; {query}"'


def data_places(outcome: Outcome) -> list[str]:
    """Return where the data is: the warehouse, then each schema with its number of tables and views."""
    output = outcome.profile.output
    where = {
        "duckdb": lambda: os.path.relpath(str(output["path"])),
        "postgres": lambda: f"{output.get('dbname')} on {output.get('host')}:{output.get('port', 5432)}",
    }.get(outcome.profile.warehouse, lambda: f"target {outcome.profile.target} ({outcome.profile.warehouse})")
    schemas: dict[str, int] = {}
    for node in outcome.pipeline.build.nodes:
        parts = (node.relation or "").replace("`", "").split(".")
        if node.resource_type in ("model", "seed", "snapshot") and node.outcome == "succeeded" and len(parts) >= 2:
            schema = parts[-2].strip('"')
            schemas[schema] = schemas.get(schema, 0) + 1
    width = max((len(schema) for schema in schemas), default=0)
    return [where(), *(f"{schema:<{width}}  {count:>4}" for schema, count in sorted(schemas.items()))]
