"""Every dbt that Tributary runs with: the same project, the same outcomes, whatever dbt it is."""

from __future__ import annotations

import base64
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import duckdb
import psutil
import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.deadline import time_limit
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.state import LEDGER, dbt_log_folder
from flows.engine.ledger.failures import log_of
from flows.engine.process.listing import list_nodes
from infrastructure.errors import ConfigError, DbtRunFailed, RunTimedOut
from infrastructure.profiles import Profile
from tests.support import engine_table
from tests.support.engine_house import SECRET, House
from tests.support.engines import engine_or_skip
from tests.support.processes import wait_until

ROOT = Path(__file__).parents[4]
PROJECTS = ROOT / "tests" / "projects"
OWN = "own"
# dbt 2 is the quickest of them and the one that differs most; the others take a minute or two.
QUICK = "2"
# Until then, a hook that failed was a line of the log.
HOOKS_HAVE_OUTCOMES = (1, 9)
ENGINES = ("1.8", "1.10", "1.11", "1.12", QUICK)


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=() if n == QUICK else pytest.mark.slow) for n in (OWN, *ENGINES)],
)
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    name = request.param
    engine = None if name == OWN else engine_or_skip(name)
    if engine and "duckdb" in engine.without:
        pytest.skip(engine.without["duckdb"])
    folder = tmp_path_factory.mktemp("engine")
    shutil.copytree(PROJECTS / "outcomes", folder / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIBUTARY_STATE", str(folder / "state"))
        for variable, value in engine.environment.items() if engine else ():
            patch.setenv(variable, value)
        found = House(folder, name, engine.program if engine else None)
        yield found
    engine_table.require_written(found.program)


@pytest.fixture
def stuck(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """A project whose second model does not end until it is written anew."""
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    found = House(tmp_path, house.name, house.dbt)
    found.write(
        "dbt_project.yml",
        "name: outcomes\nprofile: outcomes\nflags: {send_anonymous_usage_stats: false}\n"
        "models: {outcomes: {+materialized: table}}\n",
    )
    found.write("models/first.sql", "select uuid() as id")
    found.write(
        "models/endless.sql",
        "select count(*) as id from range(1000000000000) as source(n), {{ ref('first') }} where sqrt(n) >= 0",
    )
    found.write("models/last.sql", "select id from {{ ref('endless') }}")
    return found


def test_every_node_ends_as_it_should_and_what_is_mended_is_resumed(house: House) -> None:
    failed = house.failed()
    assert isinstance(failed.result, DbtResult)
    outcomes = {node.name: node.outcome for node in failed.result.nodes if node.resource_type != "exposure"}
    assert outcomes == {
        "readings": "succeeded",
        "good": "succeeded",
        "not_null_good_id": "succeeded",
        "unique_good_id": "warned",
        "on_inlined": "succeeded",
        "untested_ids": "succeeded",
        "unique_untested_ids_id": "failed",
        "after_failing_test": "skipped",
        "wrong_sql": "failed",
        "after_wrong_sql": "skipped",
        "twice_the_amount": "succeeded",
        "doubled": "succeeded",
        "wrong_expectation": "failed",
        "misjudged": "skipped",
    }
    (wrong,) = [node for node in failed.result.nodes if node.name == "wrong_sql"]
    assert "no_such_column" in wrong.message
    assert "<unknown>" not in wrong.message
    assert "dbt1308" not in wrong.message
    (test,) = [node for node in failed.result.nodes if node.name == "unique_untested_ids_id"]
    assert "1" in test.message, "how many rows it found"
    house.shows(engine_table.OUTCOMES)

    model = house.project / "models" / "wrong_sql.sql"
    model.write_text("select 1 as id")
    resumed = house.failed(options=RunOptions(resume=True))
    assert isinstance(resumed.result, DbtResult)
    again = {node.name for node in resumed.result.nodes if node.outcome == "succeeded"}
    assert {"wrong_sql", "after_wrong_sql", "good"} <= again
    assert {node.name for node in resumed.result.of("failed")} == {"unique_untested_ids_id", "wrong_expectation"}
    house.shows(engine_table.RESUME)


def test_a_selection_means_the_same_nodes(house: House) -> None:
    profile = Profile("dev", "outcomes", {"type": "duckdb", "path": "w.duckdb", "schema": "main"}, {}, dbt=house.dbt)
    found, graph = list_nodes(DbtCommand("build", select="good"), read_project(house.project), profile)
    assert "model.outcomes.good" in found
    assert "model.outcomes.wrong_sql" not in found
    assert graph.nodes["model.outcomes.good"].name == "good"
    house.shows(engine_table.SELECTION)


def test_a_selection_of_nothing_and_a_mistyped_flag_are_mistakes(house: House) -> None:
    assert house.run(select="no_such_model", options=RunOptions(allow_nothing=True)).nodes == ()
    with pytest.raises(ConfigError, match="no_such_model, which matches no node"):
        house.run(select="no_such_model")
    with pytest.raises((ConfigError, DbtRunFailed), match="no-such-flag"):
        house.run(flags=("--no-such-flag",))
    house.shows(engine_table.MISTAKES)


def test_a_secret_in_a_drivers_words_is_nowhere_that_anybody_reads(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain, as an address has it, in base64, and cut; in the log that dbt writes itself as well."""
    monkeypatch.setenv("DBT_LOG_LEVEL_FILE", "debug")
    monkeypatch.setenv("DBT_OTEL_FILE_NAME", "spans.jsonl")
    forms = [SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode(), SECRET[: len(SECRET) // 2 + 2]]
    # A driver that puts it together: the text of the model, which dbt keeps, has none of them.
    halves = " || ' ' || ".join(f"'{form[:6]}' || '{form[6:]}'" for form in forms)
    model = house.write("models/leaky.sql", f"select cast({halves} as integer) as id")
    try:
        failed = house.failed(select="leaky")
    finally:
        model.unlink()
    assert isinstance(failed.result, DbtResult)
    assert "*****" in str(failed)
    run_path, target_path = failed.result.run_path, failed.result.target_path
    read = [path for path in run_path.rglob("*") if path.is_file()]
    read += [target_path / "run_results.json", *house.folder.rglob("spans.jsonl"), *house.folder.rglob("query_log.sql")]
    assert log_of(run_path) in read
    found = [(path.name, form) for path in read for form in forms if form.encode() in path.read_bytes()]
    assert found == []
    assert [form for form in forms if form in str(failed)] == []
    assert [path.name for path in read if path.stat().st_mode & 0o077] == []
    house.shows(engine_table.SECRETS)
    log = (dbt_log_folder(run_path) / "dbt.log").read_text()
    is_said = re.search(rf"flow_run_id\W+{run_path.name.partition('-build-')[2]}", log) is not None
    assert is_said == (house.dbt is None)
    assert is_said != any("flow run's id" in lack for lack in house.program.lacks)
    house.shows(engine_table.COMMENT, "yes" if is_said else "no")


def test_a_command_that_leaves_nothing_of_its_own_has_failed(house: House, tmp_path: Path) -> None:
    """A dbt that exits with 0 and does nothing, as an alpha of dbt 2 did for a freshness check."""
    lazy = tmp_path / "dbt"
    if house.dbt is None:
        pytest.skip("it is no program of its own")
    lazy.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = --version ]; then exec {house.dbt} --version; fi\n'
        'echo \'{"info": {"name": "MainReportVersion", "msg": "Running", "level": "info", "invocation_id": "i",'
        ' "ts": "2026-01-01T00:00:00Z"}, "data": {}}\'\n'
    )
    lazy.chmod(0o755)
    with pytest.raises(DbtRunFailed, match=r"left no run_results\.json of it"):
        House(house.folder, house.name, str(lazy)).run("seed")


def test_a_freshness_check_is_made_or_refused_and_never_passed_over(house: House) -> None:
    with duckdb.connect(str(house.folder / "w.duckdb")) as connection:
        connection.execute("create or replace table main.orders as select 1 as id, timestamp '2026-01-01' as loaded_at")
    sources = house.write(
        "models/sources.yml",
        "sources: [{name: shop, schema: main, loaded_at_field: loaded_at, "
        "freshness: {warn_after: {count: 1, period: day}}, tables: [{name: orders}]}]\n",
    )
    try:
        if house.program.has_freshness:
            (orders,) = house.run("source freshness").nodes
            assert (orders.name, orders.outcome) == ("orders", "warned")
            house.shows(engine_table.FRESHNESS)
        else:
            with pytest.raises(ConfigError, match=r"has no check of how fresh sources are.*--no-freshness"):
                house.run("source freshness")
            house.shows(engine_table.FRESHNESS, "no: the run is refused; `--no-freshness` runs without")
    finally:
        sources.unlink()


def test_documentation_is_made_or_refused(house: House) -> None:
    if house.program.has_docs:
        target = house.run("docs generate").target_path
        assert (target / "catalog.json").exists()
        house.shows(engine_table.DOCS)
    else:
        with pytest.raises(ConfigError, match="does not make the documentation site: run without --docs"):
            house.run("docs generate")
        house.shows(engine_table.DOCS, "no: refused")


def test_what_failed_for_a_passing_reason_is_tried_again_with_what_it_kept_back(house: House) -> None:
    locked = house.write("models/locked.sql", "select error('IO Error: Could not set lock on file') as id")
    after = house.write("models/after_locked.sql", "select id from {{ ref('locked') }}")
    try:
        result = house.run(sleep=lambda _: locked.write_text("select 1 as id") and None, select="locked+")
    finally:
        locked.unlink()
        after.unlink()
    found = {node.name: (node.outcome, node.attempts) for node in result.nodes}
    assert found == {"locked": ("succeeded", 2), "after_locked": ("succeeded", 1)}
    house.shows(engine_table.RETRIES)


def test_a_hook_that_failed_for_a_passing_reason_is_tried_again(stuck: House) -> None:
    if stuck.program.numbers < HOOKS_HAVE_OUTCOMES:
        stuck.shows(engine_table.HOOK_RETRIES, "no: its hooks have no outcomes")
        return
    stuck.write("models/endless.sql", "select id from {{ ref('first') }}")
    project = stuck.project / "dbt_project.yml"
    settings = project.read_text()
    failing = "create or replace table main.hooked as select error('IO Error: Could not set lock on file') as id"
    project.write_text(f'{settings}on-run-end: ["{failing}"]\n')
    mended = f'{settings}on-run-end: ["create or replace table main.hooked as select 7 as id"]\n'
    result = stuck.run(sleep=lambda _: project.write_text(mended) and None)
    (hook,) = [node for node in result.nodes if node.resource_type == "operation"]
    assert (hook.outcome, hook.attempts) == ("succeeded", 2)
    assert "Could not set lock on file" in hook.earlier_messages[0]
    assert "RUN_OPERATION" not in hook.earlier_messages[0]
    models = {node.name: node.outcome for node in result.nodes if node.resource_type == "model"}
    assert models == dict.fromkeys(("first", "endless", "last"), "succeeded")
    assert stuck.value("select id from main.hooked") == 7
    stuck.shows(engine_table.HOOK_RETRIES)


def test_a_hook_that_fails_for_good_says_why_and_leaves_no_node_green_that_did_not_run(stuck: House) -> None:
    stuck.write("models/endless.sql", "select id from {{ ref('first') }}")
    project = stuck.project / "dbt_project.yml"
    project.write_text(f'{project.read_text()}on-run-start: ["create or replace view main.v as select * from none"]\n')
    failed = stuck.failed()
    assert isinstance(failed.result, DbtResult)
    models = {node.name: node.outcome for node in failed.result.nodes if node.resource_type == "model"}
    has_outcomes = stuck.program.numbers >= HOOKS_HAVE_OUTCOMES
    # Unless skip_nodes_if_on_run_start_fails is set, dbt goes on after it until 1.12.
    is_the_end = stuck.program.numbers >= (1, 12)
    assert models == dict.fromkeys(("first", "endless", "last"), "skipped" if is_the_end else "succeeded")
    assert ("outcomes-on-run-start-0 failed: " if has_outcomes else "on-run-start failed") in str(failed)
    assert "does not exist" in str(failed)
    stuck.shows(engine_table.HOOKS, "yes" if is_the_end else "yes; nodes run after on-run-start all the same")


def test_a_table_that_is_not_there_is_named(house: House) -> None:
    model = house.write("models/sourceless.sql", "select id from {{ source('shop', 'not_loaded') }}")
    sources = house.write("models/sources.yml", "sources: [{name: shop, schema: main, tables: [{name: not_loaded}]}]\n")
    try:
        failed = house.failed(select="sourceless")
    finally:
        model.unlink()
        sources.unlink()
    assert isinstance(failed.result, DbtResult)
    (node,) = failed.result.nodes
    assert "not_loaded does not exist" in node.message
    assert "<unknown>" not in str(failed)
    house.shows(engine_table.MISSING)


def test_only_what_changed_is_built(stuck: House) -> None:
    # Not `uuid()`, which gives other rows each time and so is built each time.
    stuck.write("models/first.sql", "select 1 as id")
    stuck.write("models/endless.sql", "select id from {{ ref('first') }}")
    stuck.run()
    assert stuck.run(options=RunOptions(changed=True)).nodes == ()
    stuck.write("models/last.sql", "select id, 1 as more from {{ ref('endless') }}")
    assert [node.name for node in stuck.run(options=RunOptions(changed=True)).nodes] == ["last"]
    stuck.shows(engine_table.CHANGED)


def test_a_run_that_is_out_of_time_is_stopped_and_can_be_resumed(stuck: House, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def when_it_is_stuck(deadline: object, act: Callable[[], None]) -> Iterator[None]:
        """Have the hour end when the model runs."""
        thread = threading.Thread(target=lambda: (wait_for_the_endless_model(stuck), act()), daemon=True)
        thread.start()
        yield
        thread.join()

    with monkeypatch.context() as patch, time_limit(3600):
        patch.setattr("flows.engine.attempts.calling_at", when_it_is_stuck)
        with pytest.raises(RunTimedOut, match=r"1 of \d nodes were done, 1 cut off \(endless\)"):
            stuck.run()
    require_a_resume_that_leaves_the_first_as_it_is(stuck)
    stuck.shows(engine_table.TIME_LIMIT)


# As a flow runs it, in a process that can be killed; where a shell had it ignore Ctrl-C, it would not hear of one.
RUN = """
import signal, sys
from pathlib import Path
from tests.support.engine_house import House
signal.signal(signal.SIGINT, signal.default_int_handler)
House(Path(sys.argv[1]), "stopped", sys.argv[2] or None).run()
"""


@pytest.mark.parametrize(
    ("number", "row"),
    [(signal.SIGKILL, engine_table.KILLED), (signal.SIGINT, engine_table.STOPPED)],
    ids=["killed", "cancelled"],
)
def test_a_run_that_is_ended_leaves_nothing_running_and_can_be_resumed(stuck: House, number: int, row: str) -> None:
    argv = [sys.executable, "-c", RUN, str(stuck.folder), stuck.dbt or ""]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        wait_for_the_endless_model(stuck)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(number)
        said, _ = process.communicate(timeout=300)
    wait_until(lambda: not any(is_alive(child) for child in children), "dbt ends after its flow process")
    if number != signal.SIGKILL:
        assert re.search(r"dbt build on target dev was stopped: 1 of \d nodes were done, 1 cut off \(endless\)", said)
    require_a_resume_that_leaves_the_first_as_it_is(stuck)
    stuck.shows(row)


def wait_for_the_endless_model(house: House) -> None:
    def is_there() -> bool:
        ledgers = list((house.folder / "state").rglob(LEDGER))
        return any(b'"name":"endless"' in ledger.read_bytes() for ledger in ledgers)

    wait_until(is_there, "the build reaches the model that does not end")


def require_a_resume_that_leaves_the_first_as_it_is(house: House) -> None:
    before = house.value("select id from main.first")
    house.write("models/endless.sql", "select id from {{ ref('first') }}")
    result = house.run(options=RunOptions(resume=True))
    assert {node.name: node.outcome for node in result.nodes} == dict.fromkeys(
        ("first", "endless", "last"), "succeeded"
    )
    assert house.value("select id from main.last") == before


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_rows_are_there(house: House) -> None:
    house.run("run", select="+good")
    assert house.value("select count(*) from main.good") != 0
