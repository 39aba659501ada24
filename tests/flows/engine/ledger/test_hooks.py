"""A command that was asked for nothing, stopped early or failed in a hook is not green, and goes on where it has to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.changed.freshness import ask_for_source_data
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.ledger.hooks import nodes_for_hooks
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.profiles import Profile
from tests.support.results import node
from tests.support.stores import put_state

PROJECT = (
    "name: hooked\nversion: '1.0'\nflags: {send_anonymous_usage_stats: false}\nmodels: {+materialized: table}\n"
    'on-run-end: ["insert into main.ran select * from main.wanted"]\n'
)
SOURCES = (
    "sources: [{name: shop, schema: main, config: {loaded_at_field: loaded_at, "
    "freshness: {error_after: {count: 1, period: day}}}, tables: [{name: orders}]}]\n"
)
MODELS = {"first": "select 1 as id", "second": "select * from {{ ref('first') }}"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put_state(monkeypatch, tmp_path / "state")
    models = tmp_path / "project" / "models"
    models.mkdir(parents=True)
    (models.parent / "dbt_project.yml").write_text(PROJECT)
    for name, sql in MODELS.items():
        (models / f"{name}.sql").write_text(sql)
    query(tmp_path, "create table main.ran (id int)")
    return tmp_path


def query(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        return connection.execute(sql).fetchall()


def profile_in(folder: Path) -> Profile:
    output = {"type": "duckdb", "path": str(folder / "warehouse.duckdb"), "schema": "main", "threads": 1}
    return Profile("dev", "hooked", output, {})


def build(folder: Path, options: RunOptions) -> DbtResult:
    run = RunContext(read_project(folder / "project"), profile_in(folder))
    return run_dbt(options.command("build"), run, options, retries=Retries(run_limit=0))


def test_a_hook_that_failed_runs_again_with_a_resume(folder: Path) -> None:
    with pytest.raises(DbtRunFailed, match="on-run-end"):
        build(folder, RunOptions())
    query(folder, "create table main.wanted as select 7 as id")
    result = build(folder, RunOptions(resume=True))
    assert query(folder, "from main.ran") == [(7,)]
    assert not result.of("failed", "skipped")


def test_a_hook_that_failed_runs_again_where_nothing_has_changed(folder: Path) -> None:
    with pytest.raises(DbtRunFailed, match="on-run-end"):
        build(folder, RunOptions())
    query(folder, "create table main.wanted as select 7 as id")
    assert not build(folder, RunOptions(changed=True)).of("failed", "skipped")
    assert query(folder, "from main.ran") == [(7,)]
    assert build(folder, RunOptions(changed=True)).nodes == ()
    assert query(folder, "from main.ran") == [(7,)], "it has come to a good end"


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_a_freshness_check_runs_the_hooks_only_where_the_project_asks_for_that(
    folder: Path, is_asked_for: bool
) -> None:
    """dbt runs them with it since 1.10, so that they would run twice a run, and in a plan."""
    query(folder, "create table main.wanted as select 7 as id")
    query(folder, "create table main.orders as select 1 as id, current_timestamp as loaded_at")
    (folder / "project" / "models" / "sources.yml").write_text(SOURCES)
    if is_asked_for:
        settings = PROJECT.replace("stats: false}", "stats: false, source_freshness_run_project_hooks: true}")
        (folder / "project" / "dbt_project.yml").write_text(settings)
    run = RunContext(read_project(folder / "project"), profile_in(folder))
    result = run_dbt(DbtCommand("source freshness"), run, retries=Retries(run_limit=0))
    assert [node.outcome for node in result.nodes if node.resource_type == "source"] == ["succeeded"]
    ran = query(folder, "from main.ran")
    assert ran == ([(7,)] if is_asked_for else [])
    # A question, as of a plan: it changes nothing, whatever the project asks for.
    assert set(ask_for_source_data(DbtCommand("build"), run.project, run.profile)) == {"source.hooked.shop.orders"}
    assert query(folder, "from main.ran") == ran


def test_a_selection_that_matches_nothing_is_an_error_that_names_what_was_meant(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"frist.*Did you mean first\?.*--allow-nothing"):
        build(folder, RunOptions(select="frist"))
    assert build(folder, RunOptions(select="frist", allow_nothing=True)).nodes == ()


def test_what_fail_fast_leaves_out_is_not_run_and_says_why(folder: Path) -> None:
    query(folder, "create table main.wanted as select 7 as id")
    (folder / "project" / "models" / "first.sql").write_text("select nothere")
    with pytest.raises(DbtRunFailed) as failed:
        build(folder, RunOptions(fail_fast=True))
    (left,) = failed.value.result.of("skipped")
    assert (left.name, left.message) == ("second", "Skipping due to fail_fast")


def test_hooks_are_run_with_nodes_that_can_be_run_twice_one_of_each_schema() -> None:
    tables = [node("a", relation='"w"."one"."a"'), node("b", relation='"w"."two"."b"'), node("c", relation="w.two.c")]
    appended = replace(node("log"), materialized="incremental")
    assert nodes_for_hooks([appended, *tables[:2]]) == ["model.shop.a", "model.shop.b"]
    view = replace(node("v"), materialized="view")
    assert nodes_for_hooks([appended, *tables, view]) == ["model.shop.v"]
    with pytest.raises(ConfigError, match=r"log.*without adding rows"):
        nodes_for_hooks([appended])
