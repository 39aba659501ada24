"""`--changed` and `--defer-to` on a real project, dbt and DuckDB."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.changed import last_success as last_good
from flows.engine.changed.defer import deferred
from flows.engine.changed.last_success import latest_folder
from flows.engine.changed.relations import missing_relations
from flows.engine.changed.run_memory import RunMemory
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.reporting import reporting_to
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import CHANGES, State, state_of
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.profiles import Profile
from tests.support.in_process import run_dbt_in_process
from tests.support.notes import Notes
from tests.support.stores import objects, put_back, put_state, state_variables

SHOP = Path(__file__).parents[3] / "projects" / "shop"


class Shop:
    """A copy of the shop project, to be built on targets that are schemas of one DuckDB file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "project"
        self.notes = Notes()

    def profile(self, target: str) -> Profile:
        schema = "main" if target == "prod" else target
        output = {"type": "duckdb", "path": str(self.folder / "shop.duckdb"), "schema": schema, "threads": 1}
        return Profile(target, "shop", output, {})

    def state(self, target: str = "prod") -> State:
        return state_of(read_project(self.project), target, state_variables(self.folder / "state"))

    def keep_elsewhere(self) -> None:
        """Remember what is at the address of the state, where it has one."""
        address = state_variables(self.folder / "state")["TRIBUTARY_STATE"]
        self.elsewhere = {address: objects(address)} if "://" in address else {}

    def put_back_elsewhere(self) -> None:
        for address, contents in self.elsewhere.items():
            put_back(address, contents)

    def build(self, target: str = "prod", changed: bool = False, defer_to: str | None = None, **more: Any) -> DbtResult:
        project, profile = read_project(self.project), self.profile(target)
        command = DbtCommand("build", **more)
        self.notes.said.clear()
        with reporting_to(self.notes):
            if defer_to:
                command = deferred(command, project, profile, defer_to)
            options = RunOptions(changed=changed, defer_to=defer_to)
            return run_dbt(command, RunContext(project, profile), options, retries=Retries(run_limit=0))

    def built(self, **more: Any) -> set[str]:
        """Build what changed, and return the names of what was built, tests left out."""
        return {node.name for node in self.build(changed=True, **more).nodes if node.resource_type != "test"}

    def edit(self, name: str, before: str, after: str) -> None:
        path = self.project / name
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def read(self, query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / "shop.duckdb")) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def built_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Return the shop after one full build, which no test changes but in a copy put back afterwards."""
    shop = Shop(tmp_path_factory.mktemp("shop") / "here")
    shutil.copytree(SHOP, shop.project)
    with pytest.MonkeyPatch.context() as patch:
        run_dbt_in_process(patch)
        put_state(patch, shop.folder / "state")
        shop.build()
        shutil.copytree(shop.folder, shop.folder.with_name("kept"))
        shop.keep_elsewhere()
        yield shop


@pytest.fixture
def shop(built_shop: Shop) -> Iterator[Shop]:
    yield built_shop
    shutil.rmtree(built_shop.folder)
    shutil.copytree(built_shop.folder.with_name("kept"), built_shop.folder)
    built_shop.put_back_elsewhere()


def test_nothing_changed_starts_no_dbt_at_all(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object) -> None:
        pytest.fail("dbt was started")

    monkeypatch.setattr("flows.engine.process.door.DbtProcess", started)
    result = shop.build(changed=True)
    assert result.nodes == ()
    assert result.notes == ("Nothing to build: all 14 nodes are as code and data would make them.",)
    decisions = json.loads((result.run_path / CHANGES).read_text())
    assert len(decisions) == 14
    assert all(decision["reason"].startswith("nothing changed since 20") for decision in decisions)


def test_a_dropped_table_is_built_with_what_stands_on_it(shop: Shop) -> None:
    shop.read("drop table orders")
    assert shop.built() == {"orders", "customers"}
    assert shop.built() == set()


def test_an_edit_builds_what_it_reaches_once(shop: Shop) -> None:
    shop.edit("models/staging/stg_orders.sql", "select", "select 1 as one,")
    assert shop.built() == {"stg_orders", "orders", "customers"}
    assert "Building 3 and testing 6 of 14 nodes; the rest is as it should be." in shop.notes.said
    assert shop.built() == set()


def test_code_in_other_words_builds_nothing_and_is_known_by_them_from_then_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.edit("models/staging/stg_orders.sql", "select", "-- one row per order\nSELECT")
    result = shop.build(changed=True)
    assert result.nodes == ()
    decisions = json.loads((result.run_path / CHANGES).read_text())
    reasons = {each["unique_id"]: each["reason"].partition(" since ")[0] for each in decisions}
    assert reasons["model.jaffle_shop.stg_orders"] == "in its code only the wording, and nothing else, changed"
    assert {reason for name, reason in reasons.items() if name != "model.jaffle_shop.stg_orders"} == {"nothing changed"}
    shop.edit("models/staging/stg_orders.sql", "one row per order", "one row for each order")
    assert shop.built() == set()
    with monkeypatch.context() as patch:
        patch.setattr("flows.engine.process.door.DbtProcess", lambda *_: pytest.fail("dbt was started"))
        assert shop.built() == set()
    shop.edit(
        "models/staging/stg_orders.sql", "one row for each order\nSELECT", "one row for each order\nselect distinct"
    )
    assert "stg_orders" in shop.built()
    # Nor are the tests of a model run again for its words.
    shop.edit("models/orders.sql", "select", "-- by order\nSELECT")
    assert shop.build(changed=True).nodes == ()


def test_code_in_other_words_is_built_where_something_else_changed_too(shop: Shop) -> None:
    shop.edit("models/staging/stg_orders.sql", "select", "{{ config(materialized='table') }}\nSELECT")
    assert "stg_orders" in shop.built()


def test_of_an_ephemeral_model_the_words_count_that_the_table_was_built_from(shop: Shop) -> None:
    inner = "models/staging/orders_inside.sql"
    (shop.project / inner).write_text("{{ config(materialized='ephemeral') }}\nselect 1 as id\n")
    (shop.project / "models/outside.sql").write_text("select id from {{ ref('orders_inside') }}\n")
    assert "outside" in shop.built()
    shop.edit(inner, "select", "-- inside\nselect")
    assert shop.built() == set()
    # Another run brings the manifest to the new code, and this table is still of the old.
    shop.edit(inner, "1 as id", "2 as id")
    shop.build(select="raw_payments")
    shop.edit(inner, "-- inside", "-- in there")
    assert "outside" in shop.built()
    assert shop.read("select id from outside") == [(2,)]


def test_text_that_no_table_is_made_of_builds_nothing_and_is_parsed_once(shop: Shop, monkeypatch: Any) -> None:
    shop.edit("models/schema.yml", "One row per order.", "One row for each order.")
    assert shop.built() == set()
    monkeypatch.setattr("flows.engine.process.door.DbtProcess", pytest.fail)
    assert shop.built() == set()


def test_a_failed_run_is_followed_by_what_failed_and_what_was_skipped(shop: Shop) -> None:
    shop.edit("models/orders.sql", "sum(amount) as amount", "sum(nothing) as amount")
    with pytest.raises(DbtRunFailed, match="orders"):
        shop.build(changed=True)
    # Put back as it was when it was built last, and even so nobody knows what the failure left behind.
    shop.edit("models/orders.sql", "sum(nothing) as amount", "sum(amount) as amount")
    assert shop.built() == {"orders", "customers"}
    assert shop.built() == set()


def test_a_run_that_was_killed_is_taken_up_where_it_was_and_what_it_made_of_other_code_is_not_trusted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.edit("models/staging/stg_orders.sql", "select", "select 1 as one,")
    with monkeypatch.context() as killed:
        # As far as the state is concerned: the ledger has the nodes, and nothing else was written.
        killed.setattr(RunMemory, "keep", lambda *_: None)
        assert shop.built(select="stg_orders orders") == {"stg_orders", "orders"}
    kept = shop.folder.with_name("killed")
    shutil.copytree(shop.folder, kept)
    # The same code: what had ended stands.
    assert shop.built() == {"customers"}
    shutil.rmtree(shop.folder)
    kept.rename(shop.folder)
    # The earlier code again: the fingerprints are those of the last good state, and the tables are not.
    shop.edit("models/staging/stg_orders.sql", "select 1 as one,", "select")
    assert shop.built() == {"stg_orders", "orders", "customers"}


def test_only_what_was_asked_for_is_built_and_the_rest_is_not_forgotten(shop: Shop) -> None:
    shop.edit("seeds/raw_orders.csv", "placed", "shipped")
    assert shop.built(select="raw_orders+1", exclude="tag:none") == {"raw_orders", "stg_orders"}
    assert shop.built() == {"orders", "customers"}


def test_other_variables_build_what_looks_them_up(shop: Shop) -> None:
    shop.edit("models/staging/stg_payments.sql", "select", "select {{ var('shade', 1) }} as shade,")
    assert shop.built() == {"stg_payments", "orders", "customers"}
    assert shop.built(vars={"shade": 2}) == {"stg_payments", "orders", "customers"}


def test_a_state_that_cannot_be_read_builds_everything_says_so_and_begins_anew(shop: Shop) -> None:
    folder = latest_folder(shop.state())
    assert folder is not None
    (folder / "nodes.json").write_bytes((folder / "nodes.json").read_bytes()[:1000])
    result = shop.build(changed=True)
    assert len(result.nodes) == 14
    assert any("can't be read" in note and "Everything is built." in note for note in result.notes)
    assert shop.built() == set()


def test_a_state_that_cannot_be_written_ends_no_run_and_is_said(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    shop.edit("seeds/raw_orders.csv", "placed", "shipped")
    with monkeypatch.context() as patch:
        patch.setattr(last_good, "_write_through", full)
        assert len(shop.built()) == 4
        assert any("could not be remembered" in note and "No space left" in note for note in shop.notes.said)
    # Its ledger was on disk all the same, so that nothing is lost.
    assert shop.built() == set()


def test_dbt_reads_the_state_of_a_target_that_was_built_in_part(shop: Shop) -> None:
    shop.edit("models/orders.sql", "sum(amount) as amount", "sum(nothing) as amount")
    (shop.project / "models" / "extra.sql").write_text("select nothing from {{ ref('orders') }}")
    with pytest.raises(DbtRunFailed):
        shop.build()
    folder = latest_folder(shop.state())
    assert folder is not None
    manifest = json.loads((folder / "manifest.json").read_text())["nodes"]
    # As it was built last; and what never was is not in it.
    assert "sum(amount) as amount" in manifest["model.jaffle_shop.orders"]["raw_code"]
    assert "model.jaffle_shop.extra" not in manifest
    results = json.loads((folder / "run_results.json").read_text())["results"]
    assert {entry["unique_id"]: entry["status"] for entry in results}["model.jaffle_shop.orders"] == "error"
    assert len(results) == 15
    (shop.project / "models" / "extra.sql").unlink()
    shop.edit("models/orders.sql", "sum(nothing) as amount", "sum(amount) as amount")
    assert shop.built() == {"orders", "customers"}


def test_relations_are_found_through_dbt_too_where_the_warehouse_is_not_asked_directly(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.engine.changed.relations._in_database", lambda *_: None)
    wanted = [("shop", "main", "orders"), ("shop", "main", "nowhere"), ("shop", "no_schema", "orders")]
    assert missing_relations(wanted, read_project(shop.project), shop.profile("prod")) == set(wanted[1:])


def test_slim_ci_builds_what_is_modified_and_reads_the_rest_from_the_other_target(shop: Shop) -> None:
    shop.edit("models/staging/stg_orders.sql", "select", "select 1 as one,")
    # Left behind by an earlier run of this target: it must not be read in place of the other's.
    shop.read("create schema ci")
    shop.read("create table ci.stg_payments as select 1 as order_id, 'card' as payment_method, 999 as amount")
    result = shop.build("ci", defer_to="prod")
    models = {node.name for node in result.nodes if node.resource_type != "test"}
    assert models == {"stg_orders", "orders", "customers"}
    assert shop.read("select sum(amount) from ci.orders") == shop.read("select sum(amount) from main.orders")
    assert shop.read("select count(*) from information_schema.tables where table_schema = 'ci'") == [(4,)]
    assert {node.name for node in shop.build("ci", defer_to="prod", select="customers").nodes} >= {"customers"}


def test_slim_ci_leaves_out_what_is_written_in_other_words_alone(shop: Shop) -> None:
    for name in ("staging/stg_orders", "orders"):
        shop.edit(f"models/{name}.sql", "select", "-- one row per order\nSELECT")
    assert shop.build("ci", defer_to="prod").nodes == ()
    shop.edit("models/staging/stg_payments.sql", "select", "select -- and more\n 1 as one,")
    models = {node.name for node in shop.build("ci", defer_to="prod").nodes if node.resource_type != "test"}
    assert models == {"stg_payments", "orders", "customers"}


def test_slim_ci_sees_what_dbts_own_comparison_does_not(shop: Shop) -> None:
    folder = latest_folder(shop.state())
    assert folder is not None
    document = json.loads((folder / "nodes.json").read_text())
    document["built"]["seed.jaffle_shop.raw_payments"]["parts"]["code"] = "other rows in a file above 1 MB"
    (folder / "nodes.json").write_text(json.dumps(document))
    models = {node.name for node in shop.build("ci", defer_to="prod").nodes if node.resource_type != "test"}
    assert models == {"raw_payments", "stg_payments", "orders", "customers"}
    assert any("Modified too" in note for note in shop.notes.said)


def test_with_nothing_modified_nothing_is_built_and_any_folder_that_holds_the_files_will_do(
    shop: Shop, tmp_path: Path
) -> None:
    folder = latest_folder(shop.state())
    assert folder is not None
    shutil.copytree(folder, tmp_path / "downloaded")
    shutil.rmtree(shop.state().folder)
    assert shop.build("ci", defer_to=f"file://{tmp_path}/downloaded").nodes == ()


@pytest.mark.parametrize(
    ("defer_to", "more", "message"),
    [
        ("staging", {}, r"staging has no last good state of project jaffle_shop .* run --target staging"),
        ("ci", {}, r"Target ci can't defer to itself"),
        ("./nowhere", {}, r"There is no last good state in \./nowhere: .*manifest\.json is missing"),
        ("nosuch://bucket/prod", {}, r"--defer-to nosuch://bucket/prod can't be read: "),
    ],
)
def test_what_there_is_nothing_to_compare_with_is_refused(
    shop: Shop, defer_to: str, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        shop.build("ci", defer_to=defer_to, **more)


@pytest.mark.parametrize("name", ["manifest.json", "nodes.json"])
def test_the_other_targets_state_is_refused_when_it_is_cut_off(shop: Shop, name: str) -> None:
    folder = latest_folder(shop.state())
    assert folder is not None
    (folder / name).write_bytes((folder / name).read_bytes()[:500])
    with pytest.raises(ConfigError, match=r"The last good state of prod can't be used: .* Run that target once more"):
        shop.build("ci", defer_to="prod")
