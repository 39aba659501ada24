"""SCD2 repair: damage tables first, then see what is found, proposed, done in one transaction and undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.engine.artifacts.manifest_file import manifest_of
from flows.runbook.kept_tables import KeptTables
from flows.runbook.project_tables import ProjectTables, Versions
from flows.runbook.scd2.plan import digest_of, plan_changes
from flows.runbook.scd2.repairs import Repairs, table_rows
from flows.runbook.version_checks import find_faults
from flows.warehouses.door import open_warehouse
from flows.warehouses.warehouse import Warehouse
from infrastructure.errors import ConfigError, DriftError
from infrastructure.profiles import Profile

WHOLE = (
    "('a1', 'ann', 'gig', 10.10, '2026-01-01', '2026-02-01', false, false, '2026-01-01', '2026-01-01')",
    "('a2', 'ann', 'gig', 20.20, '2026-02-01', null, true, false, '2026-02-01', '2026-02-01')",
    "('b1', 'bob', 'gig', 30.30, '2026-01-01', null, true, false, '2026-01-05', '2026-01-05')",
    "('b2', 'bob', 'tour', 5.05, '2026-01-01', null, true, false, '2026-01-01', '2026-01-01')",
    "('c1', 'cy', 'gig', 1.00, '2026-01-01', null, true, false, '2026-01-01', '2026-01-01')",
)
# A late run that took an old rate for new, one that wrote a row twice, and one whose version begins too late.
DAMAGE = (
    "('b0', 'bob', 'gig', 25.25, '2025-06-01', null, true, false, '2025-06-01', '2026-01-09')",
    "('a2', 'ann', 'gig', 20.20, '2026-02-01', null, true, false, '2026-02-01', '2026-02-01')",
    "('b9', 'bob', 'tour', 9.09, '2026-03-01', null, true, false, '2025-12-31', '2026-01-09')",
)


class Damaged:
    """A table of versions in a schema of its own."""

    def __init__(self, tables: Warehouse, profile: Profile) -> None:
        self.tables = tables
        self.relation = tables.placed(profile.output["schema"], "rates")
        self.versions = Versions(
            "model.p.rates",
            "rates",
            self.relation,
            ("player", "kind"),
            "valid_from",
            "valid_to",
            current="is_current",
            superseded="is_superseded",
            recorded="recorded_at",
            inserted="inserted_at",
        )
        tables.make_schema(profile.output["schema"])
        tables.execute(
            f"create table {self.relation} (id varchar, player varchar, kind varchar, rate numeric(18, 2), "
            "valid_from timestamp, valid_to timestamp, is_current boolean, is_superseded boolean, "
            "recorded_at timestamp, inserted_at timestamp)"
        )
        self.repairs = Repairs(tables, KeptTables(tables, profile))
        self.insert(*WHOLE)

    def insert(self, *rows: str) -> None:
        self.tables.execute(f"insert into {self.relation} values {', '.join(rows)}")

    def rows(self) -> list[str]:
        return sorted(map(repr, self.tables.rows(f"select * from {self.relation}")))


@pytest.fixture(params=["duckdb", "postgres"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Damaged]:
    """Each warehouse in turn, with a table that is whole."""
    schema = f"scd2_{uuid4().hex[:8]}"
    output: dict[str, Any] = {"type": "duckdb", "path": str(tmp_path / "dev.duckdb"), "schema": schema}
    if request.param == "postgres":
        output = {"type": "postgres", **request.getfixturevalue("postgres_database"), "schema": schema}
    profile = Profile("t", "tributary", output, {})
    with open_warehouse(profile) as tables:
        yield Damaged(tables, profile)


def test_a_whole_table_has_no_fault_and_nothing_is_proposed(damaged: Damaged) -> None:
    assert find_faults(damaged.tables, damaged.versions) == []
    assert damaged.repairs.propose(damaged.versions) == []


def test_damage_is_shown_repaired_undone_and_repaired_again(damaged: Damaged) -> None:
    whole = damaged.rows()
    damaged.insert(*DAMAGE)
    before = damaged.rows()
    found = {(fault.kind, fault.key_text) for fault in find_faults(damaged.tables, damaged.versions)}
    assert found >= {("duplicate", "bob, gig"), ("duplicate", "ann, gig"), ("duplicate", "bob, tour")}
    assert not any("cy" in key for _, key in found)

    plan = damaged.repairs.propose(damaged.versions)
    shown = {(row["key"], row["from"][:10]): (row["becomes"], row["reason"]) for row in table_rows(plan)}
    assert shown["bob, gig", "2025-06-01"][0] == "ends 2026-01-01 00:00:00"
    assert shown["bob, gig", "2026-01-01"] == (
        "stays current",
        "it is the right one: it was entered last (2026-01-05 00:00:00)",
    )
    assert shown["bob, tour", "2026-03-01"][0] == "superseded"
    assert damaged.rows() == before, "showing changes nothing"

    with pytest.raises(DriftError, match="changed since the repair was shown"):
        damaged.repairs.apply([damaged.versions], "another plan")
    assert damaged.rows() == before
    assert damaged.repairs.kept() == []

    repair_id, changes = damaged.repairs.apply([damaged.versions], digest_of(plan))
    assert digest_of(changes) == digest_of(plan)
    after = damaged.rows()
    assert set(whole) <= set(after), "the right versions are as they were"
    assert len(after) == len(whole) + 2, "the row that was there twice is there once"
    assert find_faults(damaged.tables, damaged.versions) == []
    rest = damaged.tables.rows(f"select * from {damaged.relation} where id in ('b0', 'b9') order by id")
    assert [(row["valid_to"], row["is_current"], row["is_superseded"]) for row in rest] == [
        (datetime(2026, 1, 1), False, False),
        (datetime(2026, 3, 1), False, True),
    ]
    assert damaged.repairs.propose(damaged.versions) == [], "a second repair finds nothing"

    damaged.tables.execute(f"update {damaged.relation} set rate = ? where id = ?", [1, "b0"])
    with pytest.raises(DriftError, match="changed after the repair"):
        damaged.repairs.undo(repair_id, [damaged.versions])
    damaged.tables.execute(f"update {damaged.relation} set rate = ? where id = ?", ["25.25", "b0"])
    damaged.repairs.undo(repair_id, [damaged.versions])
    assert damaged.rows() == before
    with pytest.raises(ConfigError, match="is undone"):
        damaged.repairs.undo(repair_id, [damaged.versions])
    damaged.repairs.apply([damaged.versions])
    assert damaged.rows() == after


def test_a_repair_that_would_not_make_the_table_whole_changes_nothing(damaged: Damaged) -> None:
    """The version that was entered last has versions after it, with which it would overlap."""
    damaged.insert(
        "('d1', 'dee', 'gig', 1, '2026-01-01', '2026-03-01', true, false, '2026-09-01', '2026-01-01')",
        "('d2', 'dee', 'gig', 1, '2026-03-01', '2026-04-01', false, false, '2026-03-01', '2026-01-01')",
        "('d3', 'dee', 'gig', 1, '2026-04-01', null, true, false, '2026-04-01', '2026-01-01')",
    )
    before = damaged.rows()
    with pytest.raises(ConfigError, match=r"rates would still have faults after the repair \(dee, gig: "):
        damaged.repairs.apply([damaged.versions])
    assert damaged.rows() == before
    assert damaged.repairs.kept() == []


def test_overlaps_gaps_and_ends_before_starts_are_named_by_key(damaged: Damaged) -> None:
    damaged.insert(
        "('o1', 'ola', 'gig', 1, '2026-01-01', '2026-03-01', false, false, '2026-01-01', '2026-01-01')",
        "('o2', 'ola', 'gig', 1, '2026-02-01', null, true, false, '2026-01-01', '2026-01-01')",
        "('g1', 'gus', 'gig', 1, '2026-01-01', '2026-01-15', false, false, '2026-01-01', '2026-01-01')",
        "('g2', 'gus', 'gig', 1, '2026-02-01', null, true, false, '2026-01-01', '2026-01-01')",
        "('e1', 'eve', 'gig', 1, '2026-02-01', '2026-01-01', false, false, '2026-01-01', '2026-01-01')",
        "('f1', 'fay', 'gig', 1, '2026-02-01', null, false, false, '2026-01-01', '2026-01-01')",
    )
    faults = find_faults(damaged.tables, damaged.versions)
    assert {(fault.kind, fault.key["player"]) for fault in faults} == {
        ("overlap", "ola"),
        ("gap", "gus"),
        ("ends before start", "eve"),
        ("none current", "eve"),
        ("flag", "fay"),
    }
    (gap,) = [fault for fault in faults if fault.kind == "gap"]
    assert gap.text == "the version from 2026-01-01 00:00:00 ends 2026-01-15 00:00:00, the next begins " + (
        "2026-02-01 00:00:00"
    )
    deleted = replace(damaged.versions, may_end=True)
    assert {"gap", "none current"}.isdisjoint(fault.kind for fault in find_faults(damaged.tables, deleted))


VERSIONS = Versions("model.p.v", "v", '"v"', ("k",), "begins", "ends", recorded="recorded", inserted="inserted")


def row(number: int, begins: str | None, recorded: str, inserted: str = "1", ends: str | None = None) -> dict[str, Any]:
    return {
        "k": 1,
        "begins": begins,
        "ends": ends,
        "recorded": recorded,
        "inserted": inserted,
        "has_no_end": ends is None,
        "repair_row": number,
    }


@pytest.mark.parametrize(
    ("rows", "actions", "reason"),
    [
        ([row(1, "1", "1"), row(2, "3", "3")], {1: "close", 2: "keep"}, "entered last (3)"),
        ([row(1, "1", "5"), row(2, "3", "3")], {1: "keep", 2: "delete"}, "entered last (5)"),
        ([row(1, "1", "1"), row(2, "3", "1")], {1: "close", 2: "keep"}, "begins last (3)"),
        ([row(1, "1", "1", "8"), row(2, "1", "1", "9")], {1: "delete", 2: "keep"}, "reached the warehouse last (9)"),
        ([row(1, "1", "1"), row(2, "1", "1")], {1: "keep", 2: "delete"}, "all of them are equal"),
        (
            [row(1, "1", "1"), row(2, "2", "2"), row(3, "3", "3"), row(4, "2", "2", ends="3")],
            {1: "close", 2: "delete", 3: "keep", 4: "keep"},
            "entered last (3)",
        ),
    ],
)
def test_the_right_version_is_the_one_entered_last(
    rows: list[Mapping[str, Any]], actions: dict[int, str], reason: str
) -> None:
    changes = plan_changes(VERSIONS, rows)
    assert {change.row: change.action for change in changes} == actions
    assert any(reason in change.reason for change in changes)


def node(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {
        "unique_id": f"{kind}.p.{name}",
        "resource_type": kind,
        "name": name,
        "relation_name": f'"d"."s"."{name}"',
        "config": {"materialized": "snapshot" if kind == "snapshot" else "table", **config},
    }


def test_models_say_that_they_hold_versions_and_snapshots_need_not() -> None:
    names = {"dbt_valid_from": "since", "dbt_valid_to": "until"}
    nodes = [
        node("model", "plain"),
        node("model", "rates", meta={"scd2": {"key": "id", "from": "a", "to": "b", "current": "c"}}),
        node("snapshot", "people", unique_key=["id", "kind"], hard_deletes="invalidate"),
        node(
            "snapshot", "other", unique_key="id", snapshot_meta_column_names=names, dbt_valid_to_current="date '9999'"
        ),
    ]
    document = {"nodes": {one["unique_id"]: one for one in nodes}}
    found = {one.name: one for one in ProjectTables(manifest_of(document), tuple(document["nodes"])).versions()}

    assert set(found) == {"rates", "people", "other"}
    assert (found["rates"].key, found["rates"].current, found["rates"].may_end) == (("id",), "c", False)
    assert (found["people"].key, found["people"].begins, found["people"].may_end) == (
        ("id", "kind"),
        "dbt_valid_from",
        True,
    )
    assert (found["other"].begins, found["other"].ends, found["other"].open_end) == ("since", "until", "date '9999'")


def test_a_model_that_says_half_of_it_is_named() -> None:
    half = node("model", "rates", meta={"scd2": {"key": "id", "from": "a"}})
    with pytest.raises(ConfigError, match="rates declares in its meta that it holds versions, and lacks to"):
        ProjectTables(manifest_of({"nodes": {half["unique_id"]: half}}), (half["unique_id"],)).versions()
