"""Repairs, refreshes and audits in SQL, taken over one warehouse: the same steps everywhere."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from flows.engine.artifacts.manifest_file import manifest_of
from flows.runbook.audit.checks import accuracy, corrections
from flows.runbook.audit.settings import Accuracy
from flows.runbook.full_refresh.journal import RefreshJournal
from flows.runbook.kept_tables import KeptTables
from flows.runbook.project_tables import ProjectTables, Versions
from flows.runbook.scd2.repairs import Repairs
from flows.runbook.version_checks import find_faults
from flows.warehouses.door import open_warehouse
from flows.warehouses.warehouse import Warehouse
from infrastructure.profiles import Profile

_JANUARY, _FEBRUARY = datetime(2026, 1, 1), datetime(2026, 2, 1)


def operate(profile: Profile) -> dict[str, Any]:
    """Damage tables in the profile's schema, repair and restore them, and return what was seen."""
    with open_warehouse(profile) as tables:
        schema = str(profile.output["schema"])
        tables.make_schema(schema)
        versions = _versions(tables, schema)
        kept = KeptTables(tables, profile)
        return {
            "repair": _repair(tables, versions, Repairs(tables, kept)),
            "restore": _restore(tables, versions.relation, tables.placed(schema, "seen"), kept),
            "audit": _audit(tables, versions, schema),
        }


def _versions(tables: Warehouse, schema: str) -> Versions:
    relation = tables.placed(schema, "versions")
    exact = "numeric" if tables.kind == "bigquery" else "numeric(18, 2)"
    kinds = {"player": "text", "kind": "text", "begins": "timestamp", "ends": "timestamp", "holds": "boolean"}
    kinds |= {"gone": "boolean", "entered": "timestamp"}
    declared = ", ".join(f"{tables.column(name)} {tables.type_of(kind)}" for name, kind in kinds.items())
    tables.execute(f"create table {relation} ({declared}, rate {exact})")
    key = ("player", "kind")
    names = {"current": "holds", "superseded": "gone", "recorded": "entered"}
    return Versions("model.p.versions", "versions", relation, key, "begins", "ends", **names)


def _insert(tables: Warehouse, relation: str, *rows: tuple[Any, ...]) -> None:
    for row in rows:
        tables.execute(f"insert into {relation} values (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _repair(tables: Warehouse, versions: Versions, repairs: Repairs) -> list[Any]:
    whole = ("ann", "gig", _FEBRUARY, None, True, False, _FEBRUARY, Decimal("20.20"))
    late = ("ann", "gig", _JANUARY, None, True, False, _JANUARY, Decimal("10.10"))
    _insert(tables, versions.relation, whole, whole, late)
    before = _rows(tables, versions.relation)
    seen: list[Any] = [sorted({fault.kind for fault in find_faults(tables, versions)})]
    repair_id, changes = repairs.apply([versions])
    seen.append(sorted(change.action for change in changes))
    seen.append([(row["begins"], row["ends"], row["holds"], row["rate"]) for row in _rows(tables, versions.relation)])
    seen.append(find_faults(tables, versions))
    repairs.undo(repair_id, [versions])
    seen.append(_rows(tables, versions.relation) == before)
    repairs.apply([versions])
    return [*seen, len(repairs.kept())]


def _restore(tables: Warehouse, relation: str, view: str, kept: KeptTables) -> list[Any]:
    tables.execute(f"create view {view} as select player, rate from {relation}")
    before = _rows(tables, relation)
    journal = RefreshJournal(tables, kept, "t")
    # The local Snowflake has no get_ddl, which writes a view down.
    views = [] if tables.kind == "snowflake" else [("seen", view)]
    refresh, copies = journal.back_up([("versions", relation)], views, 7)
    journal.set_state(refresh, "rebuilding")
    tables.execute(f"delete from {relation} where begins = ?", [_JANUARY])
    seen: list[Any] = [
        # The local Snowflake sends sums as doubles.
        {name: round(total, 2) for name, total in tables.measure(copies[0].backup).sums.items()},
        tables.measure(relation).rows,
        tables.missing_keys(("player", "begins"), copies[0].backup, relation),
    ]
    unfinished = journal.unfinished()
    assert unfinished
    journal.recover(unfinished)
    seen.append(_rows(tables, relation) == before)
    seen.append(len(tables.rows(f"select * from {view}")))
    return [*seen, journal.unfinished(), tables.exists(copies[0].backup)]


def _audit(tables: Warehouse, versions: Versions, schema: str) -> list[Any]:
    paid = tables.placed(schema, "paid")
    tables.copy(versions.relation, paid)
    tables.execute(f"update {paid} set rate = ? where begins = ?", [Decimal("10.12"), _JANUARY])
    nodes = {
        name: {"name": name, "resource_type": "model", "relation_name": relation, "config": {"materialized": "table"}}
        for name, relation in (("versions", versions.relation), ("paid", paid))
    }
    check = Accuracy(name="pay", calculated="versions", recorded="paid", key=("player", "begins"), amounts=("rate",))
    wrong = accuracy(tables, ProjectTables(manifest_of({"nodes": nodes}), ()), check)
    _insert(tables, versions.relation, ("bob", "gig", _JANUARY, None, True, False, _FEBRUARY, Decimal(1)))
    (late,) = corrections(tables, [versions], 12)
    return [[row["rate"] for row in wrong.rows], [(row["month"], row["corrections"]) for row in late.rows]]


def _rows(tables: Warehouse, relation: str) -> list[dict[str, Any]]:
    return tables.rows(f"select * from {relation} order by begins, player")


def expected_of_operations() -> dict[str, Any]:
    """Return what has to be seen."""
    return {
        "repair": [
            ["duplicate", "overlap"],
            ["close", "delete", "keep"],
            [(_JANUARY, _FEBRUARY, False, Decimal("10.10")), (_FEBRUARY, None, True, Decimal("20.20"))],
            [],
            True,
            2,
        ],
        "restore": [{"rate": Decimal("30.30")}, 1, 1, True, 2, None, False],
        "audit": [["10.10 ≠ 10.12 (-0.02)"], [("2026-02", 1)]],
    }
