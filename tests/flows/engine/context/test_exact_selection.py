"""Exactly the nodes that are left are handed to dbt, whatever they are called and however many they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from benchmarks.engines import NAMES
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand, Place, arguments, only_these
from flows.engine.context.exact_selection import exact_arguments, flags_beside, hand_over
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import LEDGER, TEXT_LOG
from flows.engine.ledger.ledger import read_ledger
from flows.engine.ledger.resume import fingerprint
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.profiles import Profile
from tests.support.engines import engine_or_skip, run_engine
from tests.support.in_process import run_dbt_in_process
from tests.support.odd_names import SOME, write_odd_project

LOCKED = "error('IO Error: Could not set lock on file')"
# What dbt does not begin, or takes back, when the model `orders` fails.
ON_ORDERS = {
    "model.odd.orders",
    "model.odd.orders_by_day",
    "model.odd.inner_orders",
    "model.odd.on_inside",
    "snapshot.odd.snap",
    "unit_test.odd.orders_by_day.unit_[a],b",
    "test.odd.@at.ce5df328ac",
    "test.odd.grade_A+.9c48b2b671",
    "test.odd.id::not_null.26dfffd438",
    "test.odd.orders.id=unique,always.1c47d30612",
    "test.odd.ratio_within_[0,1].90c1a68439",
    "test.odd.to*.58c3847943",
}
APART = {
    "seed.odd.raw_orders",
    "test.odd.orders",
    "model.odd.2024",
    "model.odd.größe",
    "model.odd.dim.v1",
    "model.odd.dim.v2",
    "model.odd.facts",
    "model.odd.metricflow_time_spine",
    "test.odd.not_null_dim_v1_id.d33fec4e6d",
    "test.odd.not_null_dim_v2_id.972d436685",
}


def place(folder: Path) -> Place:
    return Place(Path("/project"), Path("/profiles"), "odd", folder, Path("/run"))


def test_no_name_is_on_the_command_line_however_many_nodes_there_are(tmp_path: Path) -> None:
    nodes = [f"test.shop.{'a_long_name_' * 15}[{number},0].{number:010}" for number in range(2500)]
    command = only_these(DbtCommand("build", "tag:a", full_refresh=True, vars={"day": 1}), nodes * 2)
    assert command is not None
    argv = arguments(command, place(tmp_path), "dev")
    assert argv[argv.index("--select") :] == [
        *("--select", "result:error", "--state", str(tmp_path / "selection"), "--indirect-selection", "empty"),
        *("--vars", "{day: 1}"),
    ]
    hand_over(command.nodes, place(tmp_path).selection, {})
    written = orjson.loads((tmp_path / "selection" / "run_results.json").read_bytes())["results"]
    assert [(entry["unique_id"], entry["status"]) for entry in written] == [(key, "error") for key in nodes]


def test_no_node_left_is_nothing_to_do_and_never_everything() -> None:
    assert only_these(DbtCommand("build", "tag:a"), []) is None


def test_what_was_asked_for_stays_known_and_is_found_again() -> None:
    asked = DbtCommand("build", "tag:a", "b", vars={"a": 1}, flags=("--fail-fast",))
    left = only_these(asked, ["model.shop.x"])
    assert left is not None
    assert (left.select, left.exclude, left.vars, left.flags) == ("tag:a", "b", {"a": 1}, ("--fail-fast",))
    assert fingerprint(left) == {**fingerprint(asked), "nodes": ["model.shop.x"]}
    # As it was written down before a command could have nodes.
    assert "nodes" not in fingerprint(asked)


def test_tests_alone_are_tested_for_a_build_of_dbt_1_leaves_a_unit_test_without_its_model_out() -> None:
    tests = ("unit_test.shop.orders.adds", "test.shop.fits")
    for nodes, verb in ((tests, "test"), ((*tests, "model.shop.orders"), "build")):
        command = only_these(DbtCommand("build"), nodes)
        assert command is not None
        assert command.verb == verb


def test_what_a_command_defers_to_stays_what_it_was(tmp_path: Path) -> None:
    flags = ("--defer", "--state", "/prod", "--indirect-selection", "cautious", "--favor-state")
    assert flags_beside(flags) == ("--defer", "--defer-state", "/prod", "--favor-state")
    assert flags_beside(("--state=/prod", "--indirect-selection=eager")) == ("--defer-state", "/prod")
    assert hand_over(["a"], tmp_path, {"DBT_STATE": "/prod"}) == {"DBT_DEFER_STATE": "/prod"}
    assert hand_over(["a"], tmp_path, {"DBT_STATE": "/prod", "DBT_DEFER_STATE": "/other"}) == {}
    assert hand_over(None, tmp_path / "nothing", {"DBT_STATE": "/prod"}) == {}
    assert not (tmp_path / "nothing").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "selection").write_text("a file")
    with pytest.raises(ConfigError, match=r"The nodes that dbt is to run can't be written to .*/selection"):
        hand_over(["model.shop.x"], tmp_path / "selection", {})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_dbt_takes_exactly_these_nodes(name: str, tmp_path: Path) -> None:
    engine = engine_or_skip(name)
    project = write_odd_project(tmp_path / "project")
    # A default that would leave all of them out.
    (project / "selectors.yml").write_text("selectors: [{name: none, default: true, definition: 'tag:none'}]\n")
    output = {"type": "duckdb", "path": str(tmp_path / "w.duckdb"), "schema": "main", "threads": 2}
    profiles = {"odd": {"target": "dev", "outputs": {"dev": output}}}
    (project / "profiles.yml").write_text(json.dumps(profiles))
    here = ("--project-dir", project, "--profiles-dir", project)
    whole = run_engine(engine, "build", *here, "--select", "fqn:*")
    assert whole.returncode == 0, whole.stdout[-3000:]
    prod = tmp_path / "prod"
    (project / "target").rename(prod)

    hand_over(SOME, tmp_path / "selection", {})
    exactly = exact_arguments(tmp_path / "selection")
    deferred = ("--defer", "--favor-state", "--defer-state", prod)
    listed = run_engine(engine, "ls", *here, "--output", "json", "--output-keys", "unique_id", *exactly, *deferred)
    found = [json.loads(line)["unique_id"] for line in listed.stdout.splitlines() if line.startswith('{"unique_id"')]
    assert sorted(found) == sorted(SOME)
    by_verb = {
        "build": "model seed snapshot test",
        "run": "model",
        "test": "test",
        "seed": "seed",
        "snapshot": "snapshot",
    }
    for verb, kinds in by_verb.items():
        done = run_engine(engine, verb, *here, *exactly, *deferred)
        assert done.returncode == 0, done.stdout[-3000:]
        results = json.loads((project / "target" / "run_results.json").read_text())["results"]
        assert sorted(entry["unique_id"] for entry in results) == sorted(
            key for key in SOME if key.partition(".")[0] in kinds.split()
        )


class Odd:
    """The project with odd names, built through the engine on a DuckDB file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = write_odd_project(folder / "project")

    def build(self, **options: Any) -> DbtResult:
        output = {"type": "duckdb", "path": str(self.folder / "odd.duckdb"), "schema": "main", "threads": 1}
        retries = options.pop("retries", Retries(run_limit=0))
        profile = Profile("dev", "odd", output, {})
        run = RunContext(read_project(self.project), profile)
        return run_dbt(DbtCommand("build"), run, RunOptions(**options), retries=retries)

    def ran(self, result: DbtResult) -> set[str]:
        """Return what ran in this very run, by dbt's own artifact."""
        return {
            entry["unique_id"]
            for entry in orjson.loads((result.target_path / "run_results.json").read_bytes())["results"]
        }


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Odd:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    run_dbt_in_process(monkeypatch)
    return Odd(tmp_path)


def test_a_resumed_run_does_all_that_is_left_and_no_more_whatever_it_is_called(
    odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_ORDERS", "error('not today')")
    with pytest.raises(DbtRunFailed, match="not today"):
        odd.build()
    monkeypatch.delenv("ODD_ORDERS")
    resumed = odd.build(resume=True)
    assert odd.ran(resumed) - {"exposure.odd.board"} == ON_ORDERS
    good = {node.unique_id for node in resumed.nodes if node.outcome == "succeeded"}
    assert good - {"exposure.odd.board"} == ON_ORDERS | APART

    # Cut off after its last node: metrics, exposures and models that are compiled into others are all that is "left".
    ledger = resumed.run_path / LEDGER
    entries = [entry for entry in read_ledger(ledger) if entry["kind"] != "end"]
    ledger.write_bytes(b"".join(orjson.dumps(entry) + b"\n" for entry in entries))
    again = odd.build(resume=True)
    assert {node.unique_id for node in again.nodes} == {node.unique_id for node in resumed.nodes}
    assert not (again.run_path / TEXT_LOG).exists(), "dbt was started for nothing"

    # One that is edited is built with what stands on it.
    path = odd.project / "models" / "Finance & Sales" / "orders_by_day.sql"
    path.write_text("select id + 0 as id from {{ ref('orders') }}")
    changed = odd.build(changed=True)
    # dbt runs the unit test of an edited model together with it.
    assert odd.ran(changed) == {"model.odd.orders_by_day", "unit_test.odd.orders_by_day.unit_[a],b"}
    with duckdb.connect(str(odd.folder / "odd.duckdb"), read_only=True) as connection:
        assert connection.execute("select count(*) from orders_by_day").fetchall() == [(2,)]


def test_what_failed_for_a_passing_reason_is_tried_again_whatever_it_is_called(
    odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_ORDERS", LOCKED)

    def passes(seconds: float) -> None:
        monkeypatch.delenv("ODD_ORDERS")

    result = odd.build(retries=Retries(limit=1, run_limit=5, sleep=passes))
    # dbt 1.10 and later say of exposures, too, that they were skipped.
    assert odd.ran(result) - {"exposure.odd.board"} == ON_ORDERS
    assert {node.unique_id: node.attempts for node in result.nodes if node.attempts > 1} == {"model.odd.orders": 2}
