"""Whole dbt commands on small real projects and DuckDB."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows.engine.artifacts.manifest_file import load_manifest
from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import LEDGER
from flows.engine.ledger.failures import log_of
from flows.engine.ledger.ledger import read_ledger
from flows.engine.ledger.retries import Retries
from flows.engine.process.listing import list_nodes
from flows.engine.run import run_dbt
from infrastructure.errors import ConfigError, DbtRunFailed, TributaryError
from infrastructure.plain_text import plain
from tests.support.projects import profile_in

PROJECTS = Path(__file__).parents[2] / "projects"


def never(seconds: float) -> None:
    pytest.fail(f"waited {seconds} s to try something again that cannot work")


def by_name(result: DbtResult) -> dict[str, NodeResult]:
    return {node.name: node for node in result.nodes}


def run(
    project: str | Path, folder: Path, retries: Retries | None = None, verb: str = "build", **command: Any
) -> DbtResult:
    context = RunContext(read_project(PROJECTS / project), profile_in(folder))
    return run_dbt(DbtCommand(verb, **command), context, retries=retries or Retries(sleep=never))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder that holds state and warehouse of the tests that share a build."""
    place = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIBUTARY_STATE", str(place / "state"))
        yield place


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture(scope="module")
def failed(folder: Path) -> DbtRunFailed:
    """Build a project in which nodes end in every way."""
    with pytest.raises(DbtRunFailed) as caught:
        run("outcomes", folder)
    return caught.value


@pytest.fixture(scope="module")
def result(failed: DbtRunFailed) -> DbtResult:
    assert isinstance(failed.result, DbtResult)
    return failed.result


def test_nobody_else_can_read_what_a_run_leaves_behind(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs, ledger, artifacts, compiled SQL, history, and the DuckDB file that dbt has made."""
    before = os.umask(0o022)
    try:
        run("bare", own_state)
    finally:
        os.umask(before)
    made = [own_state / "warehouse.duckdb", *(own_state / "state").rglob("*")]
    assert len([path for path in made if path.is_file()]) > 5
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def test_every_node_ends_as_it_should(result: DbtResult) -> None:
    assert {node.unique_id.partition(".")[2]: node.outcome for node in result.nodes} == {
        "outcomes.readings": "succeeded",
        "outcomes.good": "succeeded",
        "outcomes.not_null_good_id.cf53bc9459": "succeeded",
        "outcomes.unique_good_id.c91342c84f": "warned",
        "outcomes.on_inlined": "succeeded",
        "outcomes.board": "succeeded",
        "outcomes.untested_ids": "succeeded",
        "outcomes.unique_untested_ids_id.9386211e53": "failed",
        "outcomes.after_failing_test": "skipped",
        "outcomes.wrong_sql": "failed",
        "outcomes.after_wrong_sql": "skipped",
        "outcomes.doubled.twice_the_amount": "succeeded",
        "outcomes.doubled": "succeeded",
        "outcomes.misjudged.wrong_expectation": "failed",
        "outcomes.misjudged": "skipped",
    }


def test_the_error_says_which_nodes_failed_why_and_where_the_log_is(failed: DbtRunFailed, result: DbtResult) -> None:
    text = str(failed)
    assert "dbt build failed on target dev for 3 of 15 nodes: " in text
    explained = {each.unique_id: each for each in failed.explanation.failed}
    wrong = explained["model.outcomes.wrong_sql"]
    assert text.startswith(failed.explanation.failed[0].title)
    assert re.search(r"/compiled/outcomes/models/wrong_sql\.sql:\d+$", wrong.place)
    assert wrong.not_built == ("after_wrong_sql",)
    assert "3 were skipped because of them." in text
    assert text.endswith(f"Log: {log_of(result.run_path)}")
    assert "no_such_column" in log_of(result.run_path).read_text()
    assert set(failed.failed) == {
        "model.outcomes.wrong_sql",
        "test.outcomes.unique_untested_ids_id.9386211e53",
        "unit_test.outcomes.misjudged.wrong_expectation",
    }
    assert len(failed.skipped) == 3
    assert not failed.is_transient


def test_messages_rows_and_times_are_those_of_dbts_own_artifact(result: DbtResult) -> None:
    artifact = json.loads((result.target_path / "run_results.json").read_text())["results"]
    entries = {entry["unique_id"]: entry for entry in artifact}
    assert set(entries) == {node.unique_id for node in result.nodes}
    for node in result.nodes:
        entry = entries[node.unique_id]
        assert node.status == entry["status"]
        assert node.failures == entry["failures"]
        if node.outcome != "skipped":
            assert node.message == ("" if node.outcome == "succeeded" else plain(entry["message"] or ""))
        assert node.attempts == (0 if node.outcome == "skipped" else 1)
        assert result.started_at <= node.started_at <= node.finished_at <= result.finished_at
    assert "no_such_column" in by_name(result)["wrong_sql"].message
    assert by_name(result)["unique_good_id"].failures == 1


def test_a_skipped_node_names_what_it_waited_for(result: DbtResult) -> None:
    assert {node.name: node.message for node in result.of("skipped")} == {
        "after_failing_test": "Not run: it depends on unique_untested_ids_id, which failed.",
        "after_wrong_sql": "Not run: it depends on wrong_sql, which failed.",
        "misjudged": "Not run: it depends on wrong_expectation, which failed.",
    }


def test_every_event_of_a_node_is_in_the_ledger(result: DbtResult) -> None:
    entries = list(read_ledger(result.run_path / LEDGER))
    assert (entries[0]["kind"], entries[-1]["kind"]) == ("run", "end")
    events = [entry["event"] for entry in entries if entry["kind"] == "node"]
    ended = {event["unique_id"]: event["status"] for event in events if event["finished_at"]}
    assert ended == {node.unique_id: node.status for node in result.nodes}
    started = [event["unique_id"] for event in events if event["status"] == "started"]
    assert (
        len(started)
        == len(set(started))
        == len([node for node in result.nodes if node.outcome != "skipped" and node.resource_type != "exposure"])
    )


def test_no_node_started_before_what_it_stands_on_ended(result: DbtResult) -> None:
    graph = load_manifest(result.target_path / "manifest.json")
    nodes = {node.unique_id: node for node in result.nodes}
    edges = [(parent, child) for child in nodes for parent in graph.parents(child, nodes)]
    assert ("model.outcomes.good", "model.outcomes.on_inlined") in edges
    late = [(above, below) for above, below in edges if nodes[above].finished_at > nodes[below].started_at]
    assert not late


def test_the_profile_that_dbt_reads_has_the_projects_own_name(result: DbtResult) -> None:
    assert (result.target_path.parent / "profiles" / "profiles.yml").read_text().startswith("outcomes:\n")


def test_a_selection_runs_alone_and_replaces_the_last_results(folder: Path, failed: DbtRunFailed) -> None:
    assert sorted(by_name(run("outcomes", folder, select="good", exclude="unique_good_id"))) == [
        "good",
        "not_null_good_id",
    ]


def test_a_selection_that_matches_nothing_is_a_mistake_unless_it_is_meant(folder: Path, failed: DbtRunFailed) -> None:
    with pytest.raises(ConfigError, match="godo, which matches no node"):
        run("outcomes", folder, select="godo")
    context = RunContext(read_project(PROJECTS / "outcomes"), profile_in(folder))
    result = run_dbt(DbtCommand("build", "godo"), context, RunOptions(allow_nothing=True))
    assert result.nodes == ()
    assert [note for note in result.notes if "godo" in note]


def test_listing_names_the_selected_nodes_without_touching_the_warehouse(own_state: Path) -> None:
    found, graph = list_nodes(DbtCommand("build", "good+1"), read_project(PROJECTS / "outcomes"), profile_in(own_state))
    assert {unique_id.rpartition(".")[2] for unique_id in found} >= {"good", "untested_ids", "wrong_sql"}
    assert set(found) <= set(graph.nodes)
    assert not (own_state / "warehouse.duckdb").exists()


def test_sql_that_does_not_compile_fails_the_run_with_dbts_own_words(own_state: Path) -> None:
    with pytest.raises(DbtRunFailed, match="depends on a node named 'nobody' which was not found") as caught:
        run("broken", own_state)
    assert caught.value.failed == ()
    assert not caught.value.is_transient


def test_a_project_without_profile_sources_or_tests_runs_whatever_it_says_about_logging(own_state: Path) -> None:
    result = run("bare", own_state)
    assert [(node.name, node.outcome) for node in result.nodes] == [("only", "succeeded")]


def test_variables_that_hide_dbts_log_hide_no_node(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBT_LOG_LEVEL", "none")
    monkeypatch.setenv("DBT_QUIET", "true")
    result = run("shop", own_state, select="raw_orders")
    assert [(node.name, node.outcome) for node in result.nodes] == [("raw_orders", "succeeded")]


@pytest.mark.parametrize(
    ("project", "message"),
    [
        ("packaged", r"needs 1 package and none is installed\. Install them with: uv run dbt deps --project-dir "),
        ("outcomes/models", r"models is not a dbt project: it has no dbt_project\.yml"),
        ("nowhere", r"There is no folder .*nowhere\. Give the folder of a dbt project with --project-dir"),
    ],
)
def test_what_is_no_project_is_said_before_dbt_starts(project: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_project(PROJECTS / project)


@pytest.mark.parametrize(
    ("content", "message"),
    [("name: [", "is not valid YAML"), ("models: {}", "has no name"), ("- a", "has no name"), ("", "has no name")],
)
def test_a_project_file_that_cannot_be_read_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dbt_project.yml").write_text(content)
    with pytest.raises(ConfigError, match=rf"dbt_project\.yml {message}"):
        read_project(tmp_path)


def test_packages_that_are_installed_are_enough(tmp_path: Path) -> None:
    shutil.copytree(PROJECTS / "packaged", tmp_path / "project")
    (tmp_path / "project" / "dbt_packages" / "dbt_utils").mkdir(parents=True)
    assert read_project(tmp_path / "project").profile == "packaged"


# Another process that writes to a DuckDB file keeps everybody else out: an error that passes.
HOLDER = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


def letting_go(child: subprocess.Popen[str], waits: list[float]) -> Retries:
    def sleep(seconds: float) -> None:
        waits.append(seconds)
        child.kill()
        child.wait()

    return Retries(limit=2, first_delay_seconds=10.0, sleep=sleep)


def test_only_what_failed_for_a_passing_reason_and_what_it_kept_back_runs_again(own_state: Path) -> None:
    other = own_state / "other.duckdb"
    with closing(duckdb.connect(str(other))) as connection:
        connection.execute("create table numbers as select 1 as id")
    waits: list[float] = []
    with held(other) as child:
        result = run("locked", own_state, letting_go(child, waits), vars={"other_file": str(other)})
    assert {node.name: (node.outcome, node.attempts) for node in result.nodes} == {
        "free": ("succeeded", 1),
        "unique_free_id": ("succeeded", 1),
        "from_another_file": ("succeeded", 2),
        "on_top": ("succeeded", 1),
    }
    assert {node.message for node in result.nodes} == {""}
    (reason,) = by_name(result)["from_another_file"].earlier_messages
    assert "Could not set lock on file" in reason
    assert len(waits) == 1
    assert 10.0 <= waits[0] <= 12.5
    entries = [entry for entry in read_ledger(result.run_path / LEDGER) if entry["kind"] == "node"]
    attempts = [(entry["event"]["unique_id"], entry["attempt"]) for entry in entries if entry["event"]["finished_at"]]
    assert ("model.locked.from_another_file", 1) in attempts
    assert ("model.locked.from_another_file", 2) in attempts
    assert ("model.locked.free", 2) not in attempts


def test_a_warehouse_that_lets_nobody_in_at_first_is_tried_again(own_state: Path) -> None:
    waits: list[float] = []
    with held(own_state / "warehouse.duckdb") as child:
        result = run("shop", own_state, letting_go(child, waits), select="raw_orders")
    assert [(node.name, node.outcome) for node in result.nodes] == [("raw_orders", "succeeded")]
    assert len(waits) == 1


def test_a_warehouse_that_lets_nobody_in_fails_when_there_is_no_try_left(own_state: Path) -> None:
    with (
        held(own_state / "warehouse.duckdb"),
        pytest.raises(DbtRunFailed, match="Could not set lock on file") as caught,
    ):
        run("shop", own_state, Retries(limit=0, sleep=never), select="raw_orders")
    assert caught.value.is_transient


def test_models_that_stand_on_each_other_end_in_dbts_own_sentence(tmp_path: Path, own_state: Path) -> None:
    project = tmp_path / "looped"
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text("name: looped\nprofile: shop\n")
    (project / "models" / "a.sql").write_text("select * from {{ ref('b') }}")
    (project / "models" / "b.sql").write_text("select * from {{ ref('a') }}")
    context = RunContext(read_project(project), profile_in(tmp_path))
    for options in (RunOptions(), RunOptions(changed=True)):
        with pytest.raises(TributaryError, match="Found a cycle: model"):
            run_dbt(DbtCommand("build"), context, options)
    with pytest.raises(TributaryError, match="Found a cycle: model"):
        list_nodes(DbtCommand("build"), read_project(project), profile_in(tmp_path))
