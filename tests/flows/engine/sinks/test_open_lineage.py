"""What OpenLineage is told of runs: by a server that speaks its API, and held against its published schemas."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

from flows.cli.events import events as events_command
from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.manifest_file import load_manifest
from flows.engine.context.command import DbtCommand
from flows.engine.context.project import read_project
from flows.engine.context.reporting import reporting_to
from flows.engine.context.run_context import FlowRun, RunContext
from flows.engine.context.state import LEDGER, state_of
from flows.engine.ledger.addresses import plain_relation
from flows.engine.ledger.ledger import Ledger
from flows.engine.run import run_dbt
from flows.engine.sinks import following
from flows.engine.sinks.following import Follower, send_the_rest
from flows.engine.sinks.open_lineage import is_asked
from flows.engine.sinks.sink import kinds
from infrastructure.errors import ConfigError, DbtRunFailed, UpstreamUnavailable
from tests.support.ledgers import ended, ending, head, learned, started, written
from tests.support.lineage_receiver import LineageReceiver, lineage_receiver
from tests.support.notes import Notes
from tests.support.processes import wait_until
from tests.support.projects import PROJECTS, profile_in

SCHEMAS = Path(__file__).parents[3] / "support" / "openlineage_schemas.json"
KIND = kinds()["openlineage"]
FLOW_RUN = FlowRun(UUID(int=7), "outcomes build dev", "dbt-full-pipeline")
# In the project's data, and nowhere in its code.
IDS = ("7100011", "7100022")


def set_up(patch: pytest.MonkeyPatch, url: str) -> None:
    # Its own way of trying again takes seconds, and Tributary's is what is looked at here.
    patch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    patch.setenv("OPENLINEAGE__TRANSPORT__URL", url)
    patch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 0}')


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[LineageReceiver]:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.01)
    with lineage_receiver() as found:
        set_up(monkeypatch, found.url)
        yield found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[LineageReceiver, Path]:
    """Build a project in which nodes end in every way, and return what OpenLineage got and dbt's artifacts."""
    folder = tmp_path_factory.mktemp("told")
    project = folder / "outcomes"
    shutil.copytree(PROJECTS / "outcomes", project)
    (project / "seeds" / "readings.csv").write_text(f"id,amount\n{IDS[0]},10\n{IDS[1]},20\n{IDS[1]},30\n")
    (project / "models" / "about.yml").write_text(
        "models:\n"
        "  - name: doubled\n"
        "    description: One row per reading.\n"
        "    config: {meta: {owner: data@orchard.example}}\n"
        "    columns: [{name: id, data_type: integer, description: Of the reading.}]\n"
    )
    with pytest.MonkeyPatch.context() as patch, lineage_receiver() as found:
        patch.setenv("TRIBUTARY_STATE", str(folder / "state"))
        set_up(patch, found.url)
        context = RunContext(read_project(project), profile_in(folder), FLOW_RUN)
        with pytest.raises(DbtRunFailed):
            run_dbt(DbtCommand("build"), context)
        target_path = context.state.target_path
    return found, target_path


@pytest.fixture
def told_events(told: tuple[LineageReceiver, Path]) -> LineageReceiver:
    return told[0]


def test_every_node_that_ran_has_a_start_and_an_end(told_events: LineageReceiver) -> None:
    ends = {state: set(told_events.of(state)) for state in ("COMPLETE", "FAIL", "ABORT")}
    assert ends["FAIL"] == {
        "dbt-build",
        "model.outcomes.wrong_sql",
        "test.outcomes.unique_untested_ids_id.9386211e53",
        "unit_test.outcomes.misjudged.wrong_expectation",
    }
    assert ends["COMPLETE"] >= {"seed.outcomes.readings", "model.outcomes.good", "model.outcomes.on_inlined"}
    assert ends["ABORT"] == set()
    assert set(told_events.of("START")) == ends["COMPLETE"] | ends["FAIL"]
    assert "model.outcomes.after_wrong_sql" not in set().union(*ends.values()), "what was skipped did not run"
    assert len(set(told_events.keys())) == len(told_events.events)


def test_start_and_end_are_of_one_run_and_nodes_are_within_the_command_within_the_flow(
    told_events: LineageReceiver,
) -> None:
    starts, ends = told_events.of("START"), told_events.of("COMPLETE") | told_events.of("FAIL")
    assert {name: e["run"]["runId"] for name, e in starts.items()} == {n: e["run"]["runId"] for n, e in ends.items()}
    command = starts["dbt-build"]
    above = command["run"]["facets"]["parent"]
    assert (above["run"]["runId"], above["job"]["name"]) == (str(FLOW_RUN.id), "dbt-full-pipeline")
    for name in starts.keys() - {"dbt-build"}:
        parent = ends[name]["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == command["run"]["runId"]
        assert parent["job"]["name"] == command["job"]["name"] == "outcomes.dev.dbt-build"
        assert parent["root"]["run"]["runId"] == str(FLOW_RUN.id)


def test_the_lineage_is_that_of_the_manifest(told: tuple[LineageReceiver, Path]) -> None:
    receiver, target_path = told
    nodes = load_manifest(target_path / "manifest.json")
    found = {
        (read["name"], made["name"])
        for event in (receiver.of("COMPLETE") | receiver.of("FAIL")).values()
        for made in event["outputs"]
        for read in event["inputs"]
    }
    ran = [name for name in receiver.of("START") if name.startswith(("model.", "seed."))]
    expected = {
        (plain_relation(nodes.nodes[parent].relation or ""), plain_relation(nodes.nodes[name].relation or ""))
        for name in ran
        for parent in nodes.read_by(name)
        if nodes.nodes[parent].relation
    }
    assert found == expected
    assert ("warehouse.main.good", "warehouse.main.on_inlined") in found, "an ephemeral model is looked through"


def test_what_is_known_of_a_table_comes_along(told_events: LineageReceiver) -> None:
    model = told_events.of("COMPLETE")["model.outcomes.doubled"]
    (made,) = model["outputs"]
    assert made["namespace"].startswith("duckdb:///")
    assert made["facets"]["documentation"]["description"] == "One row per reading."
    assert made["facets"]["ownership"]["owners"] == [{"name": "data@orchard.example"}]
    (column,) = made["facets"]["schema"]["fields"]
    assert (column["name"], column["type"], column["description"]) == ("id", "integer", "Of the reading.")
    assert model["job"]["facets"]["sql"]["query"].startswith("select id, amount * 2 as amount from")
    assert model["job"]["facets"]["ownership"]["owners"] == [{"name": "data@orchard.example"}]


def test_tests_are_assertions_about_what_they_test(told_events: LineageReceiver) -> None:
    (failed,) = told_events.of("FAIL")["test.outcomes.unique_untested_ids_id.9386211e53"]["inputs"]
    (assertion,) = failed["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert failed["name"] == "warehouse.main.untested_ids"
    assert (assertion["assertion"], assertion["column"], assertion["success"]) == ("unique", "id", False)
    assert (assertion["severity"], assertion["actual"]) == ("error", "1")
    (warned,) = told_events.of("COMPLETE")["test.outcomes.unique_good_id.c91342c84f"]["inputs"]
    (assertion,) = warned["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert (assertion["severity"], assertion["success"]) == ("warn", False)


def test_why_a_node_failed_comes_along(told_events: LineageReceiver) -> None:
    failed = told_events.of("FAIL")
    assert "no_such_column" in failed["model.outcomes.wrong_sql"]["run"]["facets"]["errorMessage"]["message"]
    assert failed["dbt-build"]["run"]["facets"]["errorMessage"]["message"].startswith("3 of 15 nodes failed: ")


def test_no_row_of_data_is_in_any_event(told_events: LineageReceiver) -> None:
    text = json.dumps(told_events.events)
    assert [value for value in IDS if value in text] == []


def faults(events: list[dict[str, Any]]) -> list[str]:
    """Return what OpenLineage's schemas say against events and the facets in them."""
    schemas = json.loads(SCHEMAS.read_text(encoding="utf-8"))["schemas"]
    registry = Registry().with_resources((each["$id"], Resource.from_contents(each)) for each in schemas)

    def against(address: str, document: Any) -> list[str]:
        validator = Draft202012Validator({"$ref": address}, registry=registry, format_checker=FormatChecker())
        return [f"{address}: {error.message}" for error in validator.iter_errors(document)]

    def within(document: Any) -> Iterator[str]:
        if isinstance(document, dict):
            if "_schemaURL" in document:
                yield from against(document["_schemaURL"], document)
            for inner in document.values():
                yield from within(inner)
        elif isinstance(document, list):
            for inner in document:
                yield from within(inner)

    return [fault for event in events for fault in (*against(event["schemaURL"], event), *within(event))]


def test_events_are_valid_by_openlineages_own_schemas(told_events: LineageReceiver) -> None:
    assert faults(told_events.events) == []
    wrong = json.loads(json.dumps(told_events.of("FAIL")["model.outcomes.wrong_sql"]))
    del wrong["run"]["facets"]["errorMessage"]["message"]
    wrong["run"]["runId"] = 1
    assert len(faults([wrong])) == 2, "what is not valid is found"


def follow(run_path: Path, *earlier: Path) -> Follower:
    return Follower(KIND, run_path, Artifacts(run_path), str(run_path), earlier)


A_RUN = (head(), started("a"), ended("a"), learned(a={}), ending())
STATES = ["START", "START", "COMPLETE", "COMPLETE"]


def test_a_receiver_that_is_away_for_a_while_gets_each_event_once(receiver: LineageReceiver, tmp_path: Path) -> None:
    receiver.refusing = 3
    run_path = written(tmp_path / "20261128T120000.0Z-build", A_RUN[:2])
    with Ledger(run_path / LEDGER) as ledger, follow(run_path):
        wait_until(lambda: len(receiver.events) == 2, "what there was by then is sent")
        for entry in A_RUN[2:]:
            ledger.append(entry)
    assert [event["eventType"] for event in receiver.events] == STATES
    assert receiver.refused == 3
    assert len(set(receiver.keys())) == 4


def test_a_receiver_that_is_away_costs_a_sentence_and_the_next_run_sends_the_rest(
    receiver: LineageReceiver, tmp_path: Path
) -> None:
    receiver.refusing = -1
    first = written(tmp_path / "20261128T120000.0Z-build", A_RUN)
    notes = Notes()
    with reporting_to(notes), follow(first):
        wait_until(lambda: receiver.refused > 0, "it has been asked")
    (said,) = notes.said
    assert said.startswith("OpenLineage did not take all events of this run: HTTPConnectionPool") or "503" in said
    assert said.endswith("or: uv run tributary events replay 20261128T120000 --to openlineage")

    receiver.refusing = 0
    second = written(tmp_path / "20261128T130000.0Z-build", A_RUN)
    with reporting_to(notes), follow(second, first):
        wait_until(lambda: len(receiver.events) == 8, "both runs are sent")
    assert len(set(receiver.keys())) == 8, "no event is there twice"
    assert len(notes.said) == 1
    assert send_the_rest(first, KIND, Artifacts(first)) == 0


def test_what_a_killed_process_did_not_tell_of_is_told_as_aborted(receiver: LineageReceiver, tmp_path: Path) -> None:
    run_path = written(tmp_path / "20261128T120000.0Z-build", (head(), started("a")))
    (run_path / "openlineage.sent").write_text('{"count":2,"is_whole":false}')
    assert send_the_rest(run_path, KIND, Artifacts(run_path)) == 2
    assert [(e["eventType"], e["job"]["name"]) for e in receiver.events] == [
        ("ABORT", "shop.dev.model.shop.a"),
        ("ABORT", "shop.dev.dbt-build"),
    ]


def test_a_run_is_sent_again_under_the_same_ids(receiver: LineageReceiver, tmp_path: Path) -> None:
    run_path = written(tmp_path / "20261128T120000.0Z-build", A_RUN)
    assert send_the_rest(run_path, KIND, Artifacts(run_path)) == 4
    assert send_the_rest(run_path, KIND, Artifacts(run_path)) == 0
    assert send_the_rest(run_path, KIND, Artifacts(run_path), again=True) == 4
    assert receiver.keys()[:4] == receiver.keys()[4:]


def test_what_a_process_still_sends_is_left_to_it(receiver: LineageReceiver, tmp_path: Path) -> None:
    run_path = written(tmp_path / "20261128T120000.0Z-build", A_RUN)
    with following.delivery(run_path, KIND) as mine:
        assert mine
        assert send_the_rest(run_path, KIND, Artifacts(run_path)) is None
    assert receiver.events == []


def replay(folder: Path, *words: str) -> None:
    project = ["--project-dir", str(PROJECTS / "bare"), "--target", "dev"]
    events_command.main(["replay", *words, "--to", "openlineage", *project], standalone_mode=False)


def test_replay_sends_what_is_left_and_says_how_much(
    receiver: LineageReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path))
    state = state_of(read_project(PROJECTS / "bare"), "dev", os.environ)
    run_path = written(state.folder / "runs" / "20261128T120000.000000Z-build", A_RUN)
    receiver.refusing = 3
    with pytest.raises(UpstreamUnavailable, match="did not take all events of 20261128T120000"):
        replay(tmp_path, "20261128T120000")
    receiver.refusing = 0
    replay(tmp_path, "20261128T12")
    assert "OpenLineage has 20261128T120000 now: 4 events sent." in capsys.readouterr().err
    replay(tmp_path)
    assert "nothing was sent" in capsys.readouterr().err
    assert [event["eventType"] for event in receiver.events] == STATES
    with pytest.raises(ConfigError, match="no record of a run 2025"):
        replay(tmp_path, "2025")
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    with pytest.raises(ConfigError, match="OpenLineage is not set up: set OPENLINEAGE_URL"):
        replay(tmp_path)
    assert (run_path / "openlineage.sent").exists()


def test_nothing_is_sent_where_openlineage_is_not_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not is_asked({})
    assert not is_asked({"OPENLINEAGE_NAMESPACE": "shop"})
    assert is_asked({"OPENLINEAGE_URL": "http://lineage"})
    assert not is_asked({"OPENLINEAGE_URL": "http://lineage", "OPENLINEAGE_DISABLED": "True"})
    (tmp_path / "openlineage.yml").write_text("transport: {type: console}")
    assert is_asked({})


def test_settings_without_a_transport_are_said_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "openlineage.yml").write_text("facets: {}")
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(tmp_path / "openlineage.yml"))
    run_path = written(tmp_path / "20261128T120000.0Z-build", A_RUN)
    with pytest.raises(ConfigError, match="OpenLineage's settings name no transport"):
        send_the_rest(run_path, KIND, Artifacts(run_path))
    assert "eventType" not in capfd.readouterr().out
