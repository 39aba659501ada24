"""Old tables through a refresh that fails or is cut off: damage the new ones, and see the old ones come back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.history.store import URL_VARIABLE, HistoryStore
from flows.runbook.full_refresh.differences import compare_refreshed
from flows.runbook.full_refresh.flow import built_since, require_proven, require_within
from flows.runbook.full_refresh.journal import Refresh, RefreshJournal
from flows.runbook.full_refresh.settings import Tolerance
from flows.runbook.kept_tables import KeptTables
from flows.warehouses.door import open_warehouse
from flows.warehouses.measures import Measured
from flows.warehouses.warehouse import Warehouse
from infrastructure.errors import RefreshUndone
from infrastructure.profiles import Profile


class Killed(BaseException):
    """Stand in for the end of a process."""


class Shop:
    """Two tables and a view on one of them, and the journal of their refreshes."""

    def __init__(self, tables: Warehouse, profile: Profile) -> None:
        self.tables = tables
        self.profile = profile
        schema = profile.output["schema"]
        tables.make_schema(schema)
        self.orders, self.prices, self.seen = (tables.placed(schema, name) for name in ("orders", "prices", "seen"))
        tables.execute(f"create table {self.orders} (id bigint not null, amount numeric(18, 2))")
        tables.execute(f"insert into {self.orders} values (1, 10.10), (2, 20.20), (3, null)")
        tables.execute(f"create table {self.prices} (id bigint, price numeric(18, 2))")
        tables.execute(f"insert into {self.prices} values (7, 0.01)")
        tables.execute(f"create view {self.seen} as select id, amount from {self.orders}")

    def journal(self) -> RefreshJournal:
        return RefreshJournal(self.tables, KeptTables(self.tables, self.profile), self.profile.target)

    def back_up(self, keep_days: float = 7) -> Refresh:
        chosen = [("orders", self.orders), ("prices", self.prices)]
        return self.journal().back_up(chosen, [("seen", self.seen)], keep_days, "killed")[0]

    def held(self) -> list[Any]:
        """Return all that readers see."""
        found: list[Any] = []
        for relation in (self.orders, self.prices, self.seen):
            rows = sorted(map(repr, self.tables.rows(f"select * from {relation}")))
            found.append((self.tables.columns(relation), rows, self.tables.is_view(relation)))
        return found

    def rebuild(self) -> None:
        """Do what a refresh with new code does, and dbt on PostgreSQL: views on a replaced table are gone."""
        self.tables.drop(self.seen)
        self.tables.drop(self.orders)
        self.tables.execute(f"create table {self.orders} as select 'x' as id, 'other' as code")
        self.tables.execute(f"create view {self.seen} as select code from {self.orders}")
        self.tables.drop(self.prices)

    def kept(self) -> list[str]:
        """Return the copies that are there."""
        found = self.tables.rows(
            "select table_name as name from information_schema.tables where table_schema = ?",
            [f"{self.profile.output['schema']}_backup"],
        )
        return [row["name"] for row in found if row["name"] not in ("refreshes", "refreshed")]

    def without_transactional_ddl(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make it a warehouse on which each copy is done at once, as on Snowflake and BigQuery."""
        monkeypatch.setattr(self.tables, "has_transactional_ddl", False, raising=False)


@pytest.fixture(params=["duckdb", "postgres"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """Each warehouse in turn."""
    schema = f"shop_{uuid4().hex[:8]}"
    output: dict[str, Any] = {"type": "duckdb", "path": str(tmp_path / "dev.duckdb"), "schema": schema}
    if request.param == "postgres":
        output = {"type": "postgres", **request.getfixturevalue("postgres_database"), "schema": schema}
    profile = Profile("t", "tributary", output, {})
    with open_warehouse(profile) as tables:
        yield Shop(tables, profile)


@pytest.mark.parametrize("state", ["backed up", "rebuilding", "restoring"])
def test_whatever_was_rebuilt_the_next_run_puts_all_old_tables_and_views_back(shop: Shop, state: str) -> None:
    before = shop.held()
    refresh = shop.back_up()
    shop.journal().set_state(refresh, state)
    shop.rebuild()
    assert shop.held()[0] != before[0] if shop.tables.exists(shop.prices) else True

    unfinished = shop.journal().unfinished()
    assert unfinished
    assert "restored the tables" in shop.journal().recover(unfinished)
    assert shop.held() == before
    assert shop.kept() == []
    assert shop.journal().unfinished() is None


def test_a_restore_that_is_killed_leaves_the_new_tables_and_the_next_one_the_old(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shop.held()
    refresh = shop.back_up()
    shop.tables.execute(f"update {shop.orders} set amount = 0")
    shop.tables.execute(f"delete from {shop.prices}")
    rebuilt = shop.held()
    _die_at_second_copy(shop, monkeypatch)
    with pytest.raises(Killed):
        shop.journal().restore(refresh)
    monkeypatch.undo()
    assert shop.held() == rebuilt, "all or nothing"

    unfinished = shop.journal().unfinished()
    assert unfinished
    assert unfinished.state == "restoring"
    shop.journal().recover(unfinished)
    assert shop.held() == before


def test_where_tables_are_made_at_once_the_journal_has_a_killed_restore_finished(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shop.held()
    shop.without_transactional_ddl(monkeypatch)
    refresh = shop.back_up()
    shop.tables.execute(f"update {shop.orders} set amount = 0")
    shop.tables.execute(f"delete from {shop.prices}")
    _die_at_second_copy(shop, monkeypatch)
    with pytest.raises(Killed):
        shop.journal().restore(refresh)
    monkeypatch.undo()
    shop.without_transactional_ddl(monkeypatch)
    states = [one.state for one in shop.journal().kept(refresh)]
    assert states == ["restored", "backed up", "backed up"]

    unfinished = shop.journal().unfinished()
    assert unfinished
    shop.journal().recover(unfinished)
    assert shop.held() == before
    assert shop.kept() == []


@pytest.mark.parametrize("is_transactional", [True, False])
def test_a_backup_that_is_killed_is_dropped_by_the_next_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, is_transactional: bool
) -> None:
    before = shop.held()
    if not is_transactional:
        shop.without_transactional_ddl(monkeypatch)
    _die_at_second_copy(shop, monkeypatch)
    with pytest.raises(Killed):
        shop.back_up()
    monkeypatch.undo()
    assert len(shop.kept()) == (0 if is_transactional else 1)

    unfinished = shop.journal().unfinished()
    assert unfinished
    assert "dropped the incomplete backup" in shop.journal().recover(unfinished)
    assert shop.kept() == []
    assert shop.held() == before


def test_what_other_runs_built_since_a_kill_is_not_taken_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A nightly run after the kill has recorded what the old tables do not know."""
    monkeypatch.setenv(URL_VARIABLE, str(tmp_path / "history"))
    refresh = shop.back_up()
    shop.journal().set_state(refresh, "rebuilding")
    shop.tables.execute(f"update {shop.orders} set amount = 0")
    left = shop.held()
    unfinished = shop.journal().unfinished()
    assert unfinished
    at = unfinished.changed_at
    run = {"project": "p", "target": "t", "run_started_at": at, "outcome": "succeeded", "resource_type": "model"}
    node = {"unique_id": "model.p.orders", "name": "orders"}
    store = HistoryStore(str(tmp_path / "history"))
    store.write([{**run, **node, "run_id": "1", "flow_run_id": "killed", "started_at": at + timedelta(seconds=1)}])
    store.write([{**run, **node, "run_id": "2", "flow_run_id": "before", "started_at": at - timedelta(seconds=1)}])
    assert built_since("p", "t", unfinished, ["orders", "prices"]) is None, "the killed run's own, and earlier ones"
    store.write([{**run, **node, "run_id": "3", "flow_run_id": "nightly", "started_at": at + timedelta(hours=1)}])
    assert built_since("p", "t", unfinished, ["prices"]) is None
    since = built_since("p", "t", unfinished, ["orders", "prices"])
    assert since == "orders"

    assert "orders has been built since. The old tables are kept" in shop.journal().recover(unfinished, since)
    assert shop.held() == left
    assert shop.journal().unfinished() is None
    assert len(shop.kept()) == 2


def test_a_backup_is_kept_for_its_days_and_then_let_go(shop: Shop) -> None:
    young, old = shop.back_up(keep_days=1), shop.back_up(keep_days=-1)
    for refresh in (young, old):
        shop.journal().set_state(refresh, "kept")
    assert shop.journal().unfinished() is None
    expired = shop.journal().expired()
    assert [one.refresh_id for one in expired] == [old.refresh_id]
    shop.journal().let_go(expired[0])
    assert {name.partition("_00")[0] for name in shop.kept()} == {f"r{young.refresh_id}".lower()}


BEFORE = Measured(100, {"id": "bigint", "amount": "numeric(18,2)"}, {"amount": Decimal("50.00")})


@pytest.mark.parametrize(
    ("after", "missing", "beyond"),
    [
        (BEFORE, 0, []),
        (replace(BEFORE, rows=111), 0, ["rows"]),
        (replace(BEFORE, rows=90), 0, []),
        (BEFORE, 2, ["keys that are gone"]),
        (replace(BEFORE, sums={"amount": Decimal("50.01")}), 0, ["sum of amount"]),
        (Measured(100, {"id": "bigint"}), 0, ["sum of amount"]),
        (replace(BEFORE, columns={**BEFORE.columns, "code": "text"}), 0, []),
    ],
)
def test_figures_beyond_what_is_allowed_undo_a_refresh(after: Measured, missing: int, beyond: list[str]) -> None:
    tolerance = Tolerance(rows_percent=10, missing_keys_percent=1, sums_percent=0)
    differences = compare_refreshed("orders", BEFORE, after, missing, tolerance)
    assert [one.what for one in differences if not one.is_within] == beyond
    if not beyond:
        require_within(differences, "t")
        return
    with pytest.raises(RefreshUndone, match=f"target t changed tables more than allowed: orders: {beyond[0]}"):
        require_within(differences, "t")


@pytest.mark.parametrize(
    ("came", "said"),
    [
        ({"model.p.orders": "success", "test.p.adds_up": "pass"}, None),
        ({"model.p.orders": "success", "test.p.adds_up": "warn"}, "critical test adds_up warned"),
        ({"model.p.orders": "success"}, "critical test adds_up did not run"),
        ({"test.p.adds_up": "pass"}, "orders was not rebuilt"),
        ({}, "orders was not rebuilt, critical test adds_up did not run"),
    ],
)
def test_a_refresh_that_leaves_open_whether_its_tables_are_right_is_undone(
    came: dict[str, str], said: str | None, tmp_path: Path
) -> None:
    nodes = {
        "model.p.orders": {"name": "orders", "resource_type": "model"},
        "test.p.adds_up": {"name": "adds_up", "resource_type": "test", "config": {"meta": {"critical": "yes"}}},
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"nodes": nodes}))
    at = datetime(2026, 3, 1, tzinfo=UTC)
    results = tuple(
        NodeResult(unique_id, unique_id.split(".")[2], unique_id.split(".")[0], "", status, at, at)
        for unique_id, status in came.items()
    )
    built = DbtResult("dbt build", "t", results, at, at, tmp_path, tmp_path)
    if said is None:
        require_proven(built, ["orders"], "t")
        return
    with pytest.raises(RefreshUndone, match=f"target t does not prove that its tables are right: {said}"):
        require_proven(built, ["orders"], "t")


def test_a_table_that_was_empty_may_grow() -> None:
    before, after = Measured(0, {}, {"amount": Decimal(0)}), Measured(5, {}, {"amount": Decimal(7)})
    assert all(one.is_within for one in compare_refreshed("new", before, after, 0, Tolerance(rows_percent=0)))


def _die_at_second_copy(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, copied = shop.tables.copy, list[str]()

    def once(relation: str, to: str) -> None:
        if copied:
            raise Killed
        copied.append(relation)
        copy(relation, to)

    monkeypatch.setattr(shop.tables, "copy", once)
