"""Every node that a command was to run has an outcome: what dbt leaves without one is not run, says why, and is red."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import state_of
from flows.engine.ledger.resume import interrupted_run
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from infrastructure.errors import DbtRunFailed
from infrastructure.profiles import Profile
from tests.support.engines import OTHER_ENGINES, engine_or_skip
from tests.support.in_process import InProcessDbt, run_dbt_in_process
from tests.support.stores import put_state

FILES = {
    "dbt_project.yml": "name: told\nversion: '1.0'\nflags: {send_anonymous_usage_stats: false}\n"
    "models: {+materialized: table}\n",
    "seeds/raw.csv": "id\n1\n2\n",
    "models/first.sql": "select id from {{ ref('raw') }}",
    "models/inside.sql": "{{ config(materialized='ephemeral') }}select id from {{ ref('first') }}",
    "models/second.sql": "select id from {{ ref('inside') }}",
    "models/third.sql": "select id, {{ var('wrong', 'id') }} as other from {{ ref('first') }}",
    "models/off.sql": "{{ config(enabled=false) }}select 1 as id",
    "models/models.yml": """
models:
  - {name: first, columns: [{name: id, data_tests: [not_null]}]}
  - {name: third, columns: [{name: id, data_tests: [not_null]}]}
unit_tests:
  - {name: seconds, model: third, given: [{input: ref('first'), rows: [{id: 1}]}], expect: {rows: [{id: 1}]}}
exposures:
  - {name: board, type: dashboard, owner: {name: a, email: a@example.com}, depends_on: [ref('second')]}
""",
}
EVERYTHING = {
    *("seed.told.raw", "model.told.first", "model.told.second", "model.told.third"),
    *(
        "test.told.not_null_first_id.1792d32eec",
        "test.told.not_null_third_id.34247a5597",
        "unit_test.told.third.seconds",
    ),
}
LOST = "model.told.second"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put_state(monkeypatch, tmp_path / "state")
    for name, text in FILES.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    run_dbt_in_process(monkeypatch)
    yield


def build(folder: Path, options: RunOptions | None = None, dbt: str | None = None, **command: Any) -> DbtResult:
    """Build, and return what came of it whether it went well or not; the error is in `error`."""
    output = {"type": "duckdb", "path": str(folder / "warehouse.duckdb"), "schema": "main", "threads": 1}
    run = RunContext(read_project(folder / "project"), Profile("dev", "told", output, {}, dbt=dbt))
    told: list[tuple[DbtResult, BaseException | None]] = []

    def ended(result: DbtResult, error: BaseException | None) -> None:
        told.append((result, error))

    asked = DbtCommand(command.pop("verb", "build"), **command)
    try:
        return run_dbt(asked, run, options, ended=ended, retries=Retries(run_limit=0))
    except DbtRunFailed as exc:
        assert told == [(exc.result, exc)]
        raise


def outcome_of(failed: DbtRunFailed, unique_id: str) -> NodeResult:
    return next(node for node in failed.result.nodes if node.unique_id == unique_id)


def names(result: DbtResult) -> set[str]:
    return {node.unique_id for node in result.nodes if node.resource_type not in ("operation", "exposure")}


class Forgetful(InProcessDbt):
    """dbt whose log, whose artifact or both forget a node."""

    forgets: tuple[str, ...] = ()

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, descriptors: Sequence[int] = ()
    ) -> None:
        super().__init__(argv, environment, folder, descriptors)
        if "log" in self.forgets and "build" in argv:
            self._lines = [line for line in self._lines if LOST.encode() not in line]
        results = Path(argv[argv.index("--target-path") + 1]) / "run_results.json"
        if "artifact" in self.forgets and results.exists():
            document = json.loads(results.read_bytes())
            document["results"] = [entry for entry in document["results"] if entry["unique_id"] != LOST]
            results.write_text(json.dumps(document))


def test_a_command_whose_nodes_all_have_an_outcome_is_green(folder: Path, in_process: None) -> None:
    assert names(build(folder)) == EVERYTHING
    assert names(build(folder, select="second third")) == {
        key for key in EVERYTHING if "second" in key or "third" in key
    }
    assert names(build(folder, exclude="third")) == {key for key in EVERYTHING if "third" not in key}
    assert names(build(folder, verb="test", select="third", flags=("--indirect-selection", "cautious"))) == {
        "unit_test.told.third.seconds"
    } | {key for key in EVERYTHING if key.startswith("test.told.not_null_third")}


@pytest.mark.parametrize(
    ("select", "forgets"),
    [(None, ("log", "artifact")), (None, ("artifact",)), ("raw+", ("log", "artifact"))],
)
def test_a_node_that_dbt_loses_is_not_run_and_the_command_is_red(
    folder: Path, monkeypatch: pytest.MonkeyPatch, select: str | None, forgets: tuple[str, ...]
) -> None:
    monkeypatch.setattr("flows.engine.process.door.DbtProcess", Forgetful)
    monkeypatch.setattr(Forgetful, "forgets", forgets)
    with pytest.raises(DbtRunFailed, match=r"1 of . nodes undone, though nothing failed: second") as failed:
        build(folder, select=select)
    lost = outcome_of(failed.value, LOST)
    assert (lost.outcome, lost.status) == ("skipped", "not run")
    assert lost.message in (
        "Not run: dbt was to run it, and left no outcome of it.",
        "dbt's log calls it done, and run_results.json says nothing of it: nothing proves what was done.",
    )
    command = DbtCommand("build", select=select)
    earlier = interrupted_run(state_of(read_project(folder / "project"), "dev", os.environ), command)
    assert earlier and LOST not in earlier.done and "model.told.first" in earlier.done


def test_an_outcome_that_only_the_artifact_tells_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.engine.process.door.DbtProcess", Forgetful)
    monkeypatch.setattr(Forgetful, "forgets", ("log",))
    assert names(build(folder)) == EVERYTHING


def test_a_node_that_was_switched_off_between_the_list_and_the_run_is_not_run(folder: Path, in_process: None) -> None:
    with pytest.raises(DbtRunFailed, match="off: Not run: it is not in the project any more, or disabled") as failed:
        build(folder, nodes=("seed.told.raw", "model.told.off"))
    assert [node.outcome for node in failed.value.result.nodes] == ["succeeded", "skipped"]


def test_a_unit_test_without_its_model_is_run_by_a_test(folder: Path, in_process: None) -> None:
    """A build of dbt 1 runs a unit test only together with its model, and says nothing when it does not."""
    build(folder)
    found = build(folder, nodes=("unit_test.told.third.seconds", "model.told.second"))
    assert {node.unique_id: node.status for node in found.nodes} == {
        "unit_test.told.third.seconds": "pass",
        "model.told.second": "success",
    }
    assert names(build(folder, select="test_type:unit")) == {"unit_test.told.third.seconds"}


def test_what_fail_fast_leaves_out_is_shown_unit_tests_too(folder: Path, in_process: None) -> None:
    (folder / "project" / "models" / "first.sql").write_text("select nothere from {{ ref('raw') }}")
    with pytest.raises(DbtRunFailed) as failed:
        build(folder, RunOptions(fail_fast=True))
    result = failed.value.result
    assert names(result) == EVERYTHING
    assert all(node.message for node in result.of("skipped"))
    assert outcome_of(failed.value, "unit_test.told.third.seconds").status == "not run"


# dbt of another environment does not say which nodes it is going to run: its manifest, its count or an answer does.
PROGRAM = """#!{python}
import json, pathlib, subprocess, sys
words = sys.argv[1:]
done = subprocess.run([{real!r}, *words], capture_output=True)
lines = [line for line in done.stdout.splitlines(True) if {lost!r} not in line or b"LogModelResult" not in line]
lines = [line for line in lines if {lost!r} not in line or b"LogStartLine" not in line]
if "--target-path" in words:
    results = pathlib.Path(words[words.index("--target-path") + 1], "run_results.json")
    if results.exists():
        document = json.loads(results.read_bytes())
        document["results"] = [each for each in document["results"] if each["unique_id"] != {lost!r}.decode()]
        results.write_text(json.dumps(document))
sys.stdout.buffer.writelines(lines)
sys.stderr.buffer.write(done.stderr)
sys.exit(done.returncode)
"""


def program_in(folder: Path, real: str) -> str:
    program = folder / "elsewhere" / "dbt"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable, real=real, lost=LOST.encode()))
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("name", OTHER_ENGINES)
@pytest.mark.parametrize("select", [None, "raw+"])
def test_another_dbt_that_loses_a_node_is_red(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, select: str | None
) -> None:
    real = engine_or_skip(name)
    for variable, value in real.environment.items():
        monkeypatch.setenv(variable, value)
    asked: dict[str, Any] = {"select": select, "exclude": "test_type:unit"} if name == "2" else {"select": select}
    built = build(folder, dbt=str(real.program), **(asked | {"select": None}))
    assert not built.of("failed", "skipped") and LOST in names(built)
    with pytest.raises(DbtRunFailed, match="though nothing failed: second") as failed:
        build(folder, dbt=program_in(folder, str(real.program)), **asked)
    assert outcome_of(failed.value, LOST).outcome == "skipped"
